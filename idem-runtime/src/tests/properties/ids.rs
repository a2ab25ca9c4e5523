//! Checks that no two different triples of namespace, scope and key have the same record id.

use std::collections::HashMap;

use crate::request::record_id::RecordId;
use crate::request::scope::Scope;

/// Returns every text of at most two characters from this set: a letter, and separators that a
/// naive join might use.
fn texts() -> Vec<String> {
    let letters = ["a", ":", "\0"];
    let pairs = letters
        .iter()
        .flat_map(|one| letters.iter().map(move |other| format!("{one}{other}")));
    std::iter::once(String::new())
        .chain(letters.map(str::to_owned))
        .chain(pairs)
        .collect()
}

/// Returns every scope of at most two parts with these texts, for each kind of part.
fn scopes(texts: &[String]) -> Vec<Scope> {
    type Extend = fn(Scope, &str) -> Scope;
    let kinds: [Extend; 3] = [
        |scope, text| scope.token(text),
        |scope, text| scope.value(text),
        |scope, text| scope.header("a", text),
    ];
    let parts = || {
        kinds
            .iter()
            .flat_map(|kind| texts.iter().map(move |text| (kind, text)))
    };
    let mut scopes = vec![Scope::new()];
    for (kind, text) in parts() {
        let one = kind(Scope::new(), text);
        scopes.extend(parts().map(|(kind, text)| kind(one.clone(), text)));
        scopes.push(one);
    }
    // The name of a header is a separate part.
    let others = texts.iter().filter(|name| *name != "a");
    scopes.extend(others.map(|name| Scope::new().header(name, ":")));
    scopes
}

/// Checks all combinations of short texts, because two short texts are enough for a collision.
#[test]
fn different_triples_have_different_record_ids() {
    let texts = texts();
    let short: Vec<_> = texts
        .iter()
        .filter(|text| text.len() < 2)
        .cloned()
        .collect();
    let mut seen = HashMap::new();
    for namespace in &short {
        for (number, scope) in scopes(&texts).iter().enumerate() {
            for key in &short {
                let triple = (namespace.clone(), number, key.clone());
                let id = RecordId::new(namespace, scope, key);
                if let Some(other) = seen.insert(id, triple.clone()) {
                    let [one, other] = [triple, other];
                    panic!("{one:?} and {other:?} are both {id}");
                }
            }
        }
    }
    assert!(seen.len() > 20_000, "{} triples", seen.len());
}
