//! Texts for messages: the name that the user probably meant, lists, and code.

use quote::ToTokens;

/// Returns the name in `known` that is most similar to `given`, if `given` is probably a misspelling.
pub(crate) fn nearest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given = given.to_lowercase();
    let slips = 1 + given.chars().count() / 4;
    known
        .into_iter()
        .map(|name| (distance(&given, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= slips && *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `` `a`, `b` or `c` ``
pub(crate) fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    list(names, "or")
}

/// `` `a`, `b` and `c` ``
pub(crate) fn all_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    list(names, "and")
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>, word: &str) -> String {
    let mut quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match quoted.pop() {
        Some(last) if quoted.is_empty() => last,
        Some(last) => format!("{} {word} {last}", quoted.join(", ")),
        None => String::new(),
    }
}

/// Formats tokens as a person writes code. A token stream prints a space around every token.
pub(crate) fn code(tokens: impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (printed, written) in [
        (" :: ", "::"),
        (":: ", "::"),
        (" < ", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        ("& ", "&"),
        (" (", "("),
        (" . ", "."),
        (" !", "!"),
    ] {
        text = text.replace(printed, written);
    }
    text
}

/// Returns the number of letters to insert, remove, change or swap to turn one text into the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    let mut previous = None;
    for (row, letter) in from.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let change = last[column] + usize::from(letter != *other);
            let mut cost = change.min(last[column + 1] + 1).min(current[column] + 1);
            let swapped = column > 0 && previous == Some(*other) && to[column - 1] == letter;
            if swapped {
                cost = cost.min(before_last[column - 1] + 1);
            }
            current.push(cost);
        }
        before_last = std::mem::replace(&mut last, current);
        previous = Some(letter);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_misspelt_name_has_a_nearest_name() {
        let known = ["scope", "ttl", "required", "in_flight", "record"];
        for (given, meant) in [
            ("tll", Some("ttl")),
            ("scpoe", Some("scope")),
            ("Scope", Some("scope")),
            ("require", Some("required")),
            ("inflight", Some("in_flight")),
            ("cache", None),
            ("x", None),
        ] {
            assert_eq!(nearest(given, known), meant, "{given}");
        }
    }

    #[test]
    fn code_is_formatted_as_written() {
        for text in [
            "Json<Order>",
            "::serde::de::DeserializeOwned + Send",
            "Arc<dyn Fn(&str)>",
            "Result<A, B<C>>",
            "[u8]",
            "(user.id, name!(1))",
        ] {
            let tokens: proc_macro2::TokenStream = text.parse().expect("tokens");
            assert_eq!(code(tokens), text);
        }
    }

    #[test]
    fn lists_have_commas_and_a_word_before_the_last_name() {
        assert_eq!(one_of(["a"]), "`a`");
        assert_eq!(one_of(["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
