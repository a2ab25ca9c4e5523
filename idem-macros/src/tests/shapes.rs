//! Shapes of parameters that need care in the expansion.

use super::transform;
use crate::parse::documenters::Documenters;

#[track_caller]
fn expanded(arguments: &str, item: &str) -> String {
    let (item, mistakes) = transform(arguments, item);
    let messages: Vec<_> = mistakes.into_iter().map(|it| it.to_string()).collect();
    assert_eq!(messages, [""; 0]);
    item
}

#[test]
fn two_parameters_of_one_name_are_left_to_the_compiler() {
    let closure = "let _ = |Path(id): Path<u64>, Json(Order { id, .. }): Json<Order>| ();";
    let item = "async fn pay(Path(id): Path<u64>, Json(Order { id, .. }): Json<Order>) {}";
    let text = expanded("scope = id", item);
    assert!(text.contains(closure), "{text}");
    let text = expanded("scope = id", &item.replace("{ id", "{ number"));
    assert!(!text.contains("let _ = |"), "{text}");
}

#[test]
fn a_name_of_a_member_is_not_a_use_of_the_parameter() {
    let item = |body: &str| {
        format!(
            "async fn place(#[expect(unused_variables)] id: Id, user: User, body: String) {{ {body} }}"
        )
    };
    let text = expanded("scope = token", &item("user.id"));
    assert!(text.contains("let id = __idem_arg_0;"), "{text}");
    for body in ["user.of(id)", "0..id", "format!(\"{id}\")"] {
        let text = expanded("scope = token", &item(body));
        assert!(!text.contains("__idem_arg_0"), "{text}");
    }
}

/// The attribute belongs to the pattern, which moves into the body.
#[test]
fn a_conditional_lint_moves_with_its_pattern() {
    let item = "async fn place(#[cfg_attr(test, expect(unused_variables))] id: Id, #[cfg_attr(test, expect(unused_variables))] body: String) {}";
    let text = expanded("scope = token", item);
    let moved = "#[cfg_attr(test, expect(unused_variables))]\n            let id = __idem_arg_0;";
    assert!(text.contains(moved), "{text}");
    let wrapper = "#[cfg_attr(test, allow(unused_variables))]\n    body:";
    assert!(text.contains(wrapper), "{text}");
}

#[test]
fn a_runtime_in_parentheses_is_borrowed() {
    let item = "async fn place(State(state): State<App>, body: String) {}";
    let text = expanded("scope = token, runtime = (state.idem)", item);
    assert!(text.contains("|| &state.idem"), "{text}");
}

#[test]
fn a_type_of_a_macro_is_recognized() {
    use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
    use quote::quote;

    let grouped = |ty: TokenStream| TokenTree::from(Group::new(Delimiter::None, ty));
    let (key, body) = (
        grouped(quote!(IdempotencyKey)),
        grouped(quote!(Json<Order>)),
    );
    let item = quote!(async fn place(key: #key, body: #body) {});
    let transform = |arguments| crate::transform(arguments, item.clone(), Documenters::default());
    let (item, mistakes) = transform(quote!(scope = global, key = header("x-id")));
    assert!(mistakes.is_empty());
    assert!(item.to_string().contains("KeyArgument"), "{item}");
    let (_, mistakes) = transform(quote!(scope = body.account));
    let message = mistakes.into_iter().next().expect("a mistake").to_string();
    assert!(message.contains("comes from the body"), "{message}");
}

/// An `allow` of a macro is an error where the user's crate forbids the lint.
#[test]
fn a_handler_with_a_mistake_has_no_lint_level() {
    let item = "async fn place(user: User, _order: String) {}";
    let (text, mistakes) = transform("scope = usr.id", item);
    assert!(!mistakes.is_empty());
    assert!(text.contains("let _ = &user;"), "{text}");
    assert!(!text.contains("allow"), "{text}");
}
