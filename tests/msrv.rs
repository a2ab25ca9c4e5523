//! The declared minimum Rust version covers everything that a user builds.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// `1.88`, `1.88.0`: as numbers that compare.
fn version(text: &str) -> Vec<u32> {
    let mut parts: Vec<_> = text
        .split('.')
        .map(|part| part.parse().expect("a number"))
        .collect();
    parts.resize(3, 0);
    parts
}

#[test]
fn no_dependency_asks_for_a_newer_compiler() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();

    let asks: BTreeMap<_, _> = all(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["rust_version"])))
        .collect();
    let needs: BTreeMap<_, _> = all(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let is_built = |dep: &Value| {
                all(&dep["dep_kinds"])
                    .iter()
                    .any(|kind| text(&kind["kind"]) != "dev")
            };
            let deps = all(&node["deps"]).into_iter().filter(is_built);
            (
                text(&node["id"]),
                deps.map(|dep| text(&dep["pkg"])).collect::<Vec<_>>(),
            )
        })
        .collect();

    let declared = version(env!("CARGO_PKG_RUST_VERSION"));
    let mut seen = BTreeSet::new();
    let mut next = vec![text(&metadata["resolve"]["root"])];
    while let Some(id) = next.pop() {
        let asked = &asks[&id];
        assert!(
            asked.is_empty() || version(asked) <= declared,
            "{id} asks for {asked}"
        );
        if seen.insert(id.clone()) {
            next.extend(needs[&id].iter().cloned());
        }
    }
    assert!(seen.len() > 30, "only {} packages seen", seen.len());
}
