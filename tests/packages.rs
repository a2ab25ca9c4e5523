//! Checks that each published package has a README, both licences and the links that crates.io shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The folder and the manifest of every published package.
fn published() -> Vec<(PathBuf, Value)> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        // cargo reports `publish = false` as an empty list of registries.
        .filter(|package| package["publish"].is_null())
        .map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
            let folder = manifest.parent().expect("a folder").to_owned();
            (folder, package.clone())
        })
        .collect()
}

#[test]
fn every_package_contains_its_readme_and_both_licences() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (folder, package) in published() {
        let name = &package["name"];
        let list = Command::new(env!("CARGO"))
            .args(["package", "--list", "--allow-dirty", "--offline"])
            .current_dir(&folder)
            .output()
            .expect("cargo runs");
        let list = String::from_utf8(list.stdout).expect("UTF-8");
        for file in ["README.md", "LICENSE-APACHE", "LICENSE-MIT"] {
            assert!(list.lines().any(|line| line == file), "{name} lacks {file}");
        }
        let extra = |line: &&str| line.starts_with("tests/") || line.starts_with("benches/");
        assert_eq!(list.lines().find(extra), None, "{name}");
        for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
            let text = fs::read_to_string(folder.join(licence)).expect("a readable licence");
            let expected = fs::read_to_string(root.join(licence)).expect("a readable licence");
            assert!(text == expected, "{licence} of {name} differs");
        }
    }
}

#[test]
fn every_package_has_the_metadata_that_crates_io_shows() {
    let packages = published();
    assert!(packages.len() >= 3, "{} packages", packages.len());
    for (_, package) in packages {
        for field in [
            "description",
            "documentation",
            "license",
            "rust_version",
            "readme",
        ] {
            assert!(
                package[field].is_string(),
                "{} lacks {field}",
                package["name"]
            );
        }
        let has_features = package["features"]
            .as_object()
            .is_some_and(|all| !all.is_empty());
        let all_features = &package["metadata"]["docs"]["rs"]["all-features"];
        assert!(
            !has_features || *all_features == true,
            "docs.rs would hide features of {}",
            package["name"]
        );
    }
}
