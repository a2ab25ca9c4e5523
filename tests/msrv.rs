//! Checks that the declared minimum Rust version covers every dependency of every feature.

use std::collections::{BTreeMap, BTreeSet};
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

/// The packages of the workspace and their dependencies, of every feature.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--all-features",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().cloned().expect("packages")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The names and versions of the packages that a user of the facade builds. `cargo metadata` cannot tell, because it
/// unites the features that all members of the workspace use.
fn built(features: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package=axum-idem", "--locked", "--target=all"])
        .args(["--edges=normal,build", "--prefix=none", "--format={p}"])
        .args(["--features", features])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let package = |line: &str| {
        let mut words = line.split(' ');
        Some(format!(
            "{} {}",
            words.next()?,
            words.next()?.strip_prefix('v')?
        ))
    };
    lines.lines().filter_map(package).collect()
}

#[test]
fn no_dependency_needs_a_newer_compiler() {
    let packages = packages();
    let facade = packages
        .iter()
        .find(|package| package["name"] == "axum-idem");
    let features = facade.expect("the facade is a package")["features"]
        .as_object()
        .expect("features");
    let has_sqlx = |feature: &&str| feature.starts_with("postgres") || *feature == "sqlite";
    let (with_sqlx, others): (Vec<_>, Vec<_>) =
        features.keys().map(String::as_str).partition(has_sqlx);
    assert!(!with_sqlx.is_empty() && others.len() > 3);

    let asks: BTreeMap<_, _> = packages
        .iter()
        .map(|package| {
            let (name, version) = (text(&package["name"]), text(&package["version"]));
            (format!("{name} {version}"), text(&package["rust_version"]))
        })
        .collect();
    let declared = env!("CARGO_PKG_RUST_VERSION");
    for (features, minimum) in [(others, declared), (with_sqlx, WITH_SQLX)] {
        let built = built(&features.join(","));
        assert!(
            built.len() > 30,
            "only {} packages with {features:?}",
            built.len()
        );
        for id in built {
            let asked = &asks[&id];
            assert!(
                asked.is_empty() || version(asked) <= version(minimum),
                "with {features:?}, {id} needs Rust {asked}"
            );
        }
    }
}
