//! Checks that no file imports from a folder above its own.
//!
//! `ARCHITECTURE.md` lists the folders from top to bottom. This test reads the imports of every file,
//! without its tests. The test fails on an upward import and on a circular import.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, File, Item, UseTree, Visibility};

/// The folders and files directly below `src`, from top to bottom. A file may import from its own
/// folder and from the folders after it.
const RUNTIME: &[&str] = &[
    "lib", "testing", "metrics", "console", "openapi", "handler", "claim", "attempt", "service",
    "response", "store", "trace", "observe", "request", "settings",
];
const MACROS: &[&str] = &["lib", "transform", "expand", "check", "parse", "messages"];

/// A module path in the crate, such as `store::memory::claims`.
type Module = Vec<String>;

struct Crate {
    modules: BTreeMap<Module, PathBuf>,
    /// The modules that each module names, except in re-exports.
    imports: BTreeMap<Module, BTreeSet<Module>>,
}

impl Crate {
    fn read(src: &Path) -> Self {
        let mut modules = BTreeMap::new();
        find_modules(src, &mut Vec::new(), &mut modules);
        let files: BTreeMap<_, _> = modules
            .iter()
            .map(|(module, path)| {
                let source = fs::read_to_string(path).expect("a readable source file");
                (
                    module.clone(),
                    syn::parse_file(&source).expect("valid Rust"),
                )
            })
            .collect();
        for (parent, file) in &files {
            for test in test_modules(file) {
                let test = [parent.clone(), vec![test]].concat();
                modules.retain(|module, _| !module.starts_with(&test));
            }
        }
        let mut imports = BTreeMap::new();
        for module in modules.keys() {
            let mut named = Vec::new();
            collect(&files[module], &mut named);
            let found = named
                .into_iter()
                .filter_map(|path| resolve(module, &path, &modules))
                .filter(|imported| imported != module)
                .collect();
            imports.insert(module.clone(), found);
        }
        Self { modules, imports }
    }

    fn upward_imports(&self, order: &[&str]) -> Vec<String> {
        let floor = |module: &Module| {
            let top = module.first().map_or("lib", String::as_str);
            order
                .iter()
                .position(|name| *name == top)
                .unwrap_or_else(|| panic!("`{top}` is missing in the order of folders"))
        };
        self.imports
            .iter()
            .flat_map(|(from, to)| to.iter().map(move |to| (from, to)))
            .filter(|(from, to)| floor(from) > floor(to))
            .map(|(from, to)| format!("{} imports {}", from.join("::"), to.join("::")))
            .collect()
    }

    /// Lists each file that imports itself through other files.
    fn circles(&self) -> Vec<String> {
        let reaches_itself = |start: &Module| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<_> = self.imports[start].iter().collect();
            while let Some(module) = next.pop() {
                if module == start {
                    return true;
                }
                if seen.insert(module) {
                    next.extend(&self.imports[module]);
                }
            }
            false
        };
        let in_a_circle = |module: &&Module| !module.is_empty() && reaches_itself(module);
        self.modules
            .keys()
            .filter(in_a_circle)
            .map(|module| module.join("::"))
            .collect()
    }
}

fn find_modules(folder: &Path, path: &mut Module, modules: &mut BTreeMap<Module, PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let entry = entry.expect("an entry").path();
        let name = entry
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a file name")
            .to_owned();
        if entry.is_dir() {
            path.push(name);
            find_modules(&entry, path, modules);
            path.pop();
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let mut module = path.clone();
            if !matches!(name.as_str(), "lib" | "mod") {
                module.push(name);
            }
            modules.insert(module, entry);
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let tokens = attribute.to_token_stream().to_string();
        attribute.path().is_ident("cfg") && tokens.contains("test") && !tokens.contains("testing")
    })
}

/// The modules that a file declares for tests only.
fn test_modules(file: &File) -> Vec<String> {
    let declared = file.items.iter().filter_map(|item| match item {
        Item::Mod(item) if is_test(&item.attrs) => Some(item.ident.to_string()),
        _ => None,
    });
    declared.collect()
}

/// Collects every path in a file that begins with `crate`, `self` or `super`.
fn collect(file: &File, named: &mut Vec<Vec<String>>) {
    for item in &file.items {
        match item {
            Item::Use(item) if is_test(&item.attrs) => {}
            // The re-exports of a `mod.rs` are not imports.
            Item::Use(item) if !matches!(item.vis, Visibility::Inherited) => {}
            Item::Use(item) => paths_of(&item.tree, &mut Vec::new(), named),
            Item::Mod(item) if is_test(&item.attrs) || item.content.is_none() => {}
            // `__private` re-exports for generated code.
            Item::Mod(item) if item.ident == "__private" => {}
            item => paths_in(item.to_token_stream(), named),
        }
    }
}

fn paths_of(tree: &UseTree, prefix: &mut Vec<String>, named: &mut Vec<Vec<String>>) {
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            paths_of(&path.tree, prefix, named);
            prefix.pop();
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                paths_of(tree, prefix, named);
            }
        }
        UseTree::Name(name) => named.push([prefix.clone(), vec![name.ident.to_string()]].concat()),
        UseTree::Rename(name) => {
            named.push([prefix.clone(), vec![name.ident.to_string()]].concat());
        }
        UseTree::Glob(_) => named.push(prefix.clone()),
    }
}

/// Reads tokens rather than syntax, because paths inside macros such as `tracing::warn!` count too.
fn paths_in(tokens: TokenStream, named: &mut Vec<Vec<String>>) {
    let mut path: Vec<String> = Vec::new();
    let mut colons = 0;
    for token in tokens {
        if let TokenTree::Punct(punct) = &token
            && punct.as_char() == ':'
        {
            colons += 1;
            continue;
        }
        if colons != 2 {
            named.push(std::mem::take(&mut path));
        }
        colons = 0;
        match token {
            TokenTree::Ident(ident) => path.push(ident.to_string()),
            TokenTree::Group(group) => paths_in(group.stream(), named),
            _ => {}
        }
    }
    named.push(path);
}

/// Resolves a path to the deepest module that it names.
fn resolve(from: &Module, path: &[String], modules: &BTreeMap<Module, PathBuf>) -> Option<Module> {
    let (first, rest) = path.split_first().filter(|(_, rest)| !rest.is_empty())?;
    let mut at = match first.as_str() {
        "crate" => Module::new(),
        "self" => from.clone(),
        "super" => {
            let mut parent = from.clone();
            parent.pop();
            parent
        }
        // A module that this file declares.
        name => {
            let child = [from.clone(), vec![name.to_owned()]].concat();
            modules.contains_key(&child).then_some(child)?
        }
    };
    for name in rest {
        if name == "super" {
            at.pop();
            continue;
        }
        at.push(name.clone());
        if !modules.contains_key(&at) {
            at.pop();
            break;
        }
    }
    // `crate::testing` and similar paths resolve. The crate root itself only contains re-exports.
    modules.contains_key(&at).then_some(at)
}

fn source(krate: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(krate)
        .join("src")
}

#[test]
fn the_architecture_lists_every_folder_from_top_to_bottom() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("a readable document");
    for order in [RUNTIME, MACROS] {
        let mut rest = document.as_str();
        for name in order
            .iter()
            .filter(|name| !matches!(**name, "lib" | "trace" | "transform"))
        {
            let heading = format!("`{name}/`");
            let at = rest.find(&heading);
            assert!(at.is_some(), "{heading} is missing or out of order");
            rest = &rest[at.unwrap_or_default()..];
        }
    }
}

#[test]
fn no_file_imports_from_a_folder_above_its_own() {
    for (krate, order) in [("idem-runtime", RUNTIME), ("idem-macros", MACROS)] {
        let upward = Crate::read(&source(krate)).upward_imports(order);
        assert!(upward.is_empty(), "{krate}:\n{}", upward.join("\n"));
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    for krate in ["idem-runtime", "idem-macros"] {
        let circles = Crate::read(&source(krate)).circles();
        assert!(circles.is_empty(), "{krate}: {}", circles.join(", "));
    }
}
