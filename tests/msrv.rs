//! Checks that the declared minimum Rust version covers every dependency of every feature.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Converts `1.88` and `1.88.0` to numbers that can be compared.
fn version(text: &str) -> Vec<u32> {
    let mut parts: Vec<_> = text
        .split('.')
        .map(|part| part.parse().expect("a number"))
        .collect();
    parts.resize(3, 0);
    parts
}

/// The minimum Rust version of the features that use sqlx.
const WITH_SQLX: &str = "1.94";

/// The output of `cargo metadata` for the facade with these features.
fn metadata(features: &str) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--features"])
        .arg(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn all(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// Every package that a user of the facade builds, with the Rust version that it declares.
fn built(metadata: &Value) -> BTreeMap<String, String> {
    let asks: BTreeMap<_, _> = all(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["rust_version"])))
        .collect();
    let nodes: BTreeMap<_, _> = all(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (text(&node["id"]), node))
        .collect();

    let mut seen = BTreeMap::new();
    let mut next = vec![text(&metadata["resolve"]["root"])];
    while let Some(id) = next.pop() {
        if seen.insert(id.clone(), asks[&id].clone()).is_some() {
            continue;
        }
        let is_built = |dependency: &&Value| {
            let kinds = all(&dependency["dep_kinds"]);
            kinds.iter().any(|kind| text(&kind["kind"]) != "dev")
        };
        let dependencies = all(&nodes[&id]["deps"]);
        next.extend(
            dependencies
                .iter()
                .filter(is_built)
                .map(|dependency| text(&dependency["pkg"])),
        );
    }
    seen
}

#[test]
fn no_dependency_needs_a_newer_compiler() {
    let packages = all(&metadata("")["packages"]);
    let facade = packages
        .iter()
        .find(|package| package["name"] == "axum-idem");
    let features = facade.expect("the facade is a package")["features"]
        .as_object()
        .expect("features");
    let has_sqlx = |feature: &&str| feature.starts_with("postgres");
    let (with_sqlx, others): (Vec<_>, Vec<_>) =
        features.keys().map(String::as_str).partition(has_sqlx);
    assert!(!with_sqlx.is_empty() && others.len() > 3);

    let declared = env!("CARGO_PKG_RUST_VERSION");
    for (features, minimum) in [(others, declared), (with_sqlx, WITH_SQLX)] {
        let built = built(&metadata(&features.join(",")));
        assert!(
            built.len() > 30,
            "only {} packages with {features:?}",
            built.len()
        );
        for (id, asked) in built {
            assert!(
                asked.is_empty() || version(&asked) <= version(minimum),
                "with {features:?}, {id} needs Rust {asked}"
            );
        }
    }
}
