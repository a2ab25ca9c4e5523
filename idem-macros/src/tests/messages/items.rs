//! Items that are half typed, and items that are not handlers.

use expect_test::expect;

use super::check_item;

#[test]
fn half_typed_functions_are_kept() {
    check_item(
        "async fn place(State(desk): State<Desk>, order) -> String { order }",
        &expect![[r#"
            )
                cannot parse this function: expected `:`

            async fn place (State (desk) : State < Desk >, order) -> String { order }"#]],
    );
    check_item(
        "async fn place(user: User, order: ) -> String { order. }",
        &expect![[r#"
            )
                cannot parse this function: unexpected end of input, expected one of: `for`, parentheses, `unsafe`, `fn`, `extern`, identifier, `::`, `<`, `dyn`, square brackets, `*`, `&`, `!`, `impl`, `_`, lifetime

            async fn place (user : User , order :) -> String { order . }"#]],
    );
    check_item(
        "async fn place(order: String) -> { order }",
        &expect![[r#"
            {
                cannot parse this function: expected one of: `for`, parentheses, `unsafe`, `fn`, `extern`, identifier, `::`, `<`, `dyn`, square brackets, `*`, `&`, `!`, `impl`, `_`, lifetime

            async fn place (order : String) -> { order }"#]],
    );
    check_item(
        "async fn place(order: String)",
        &expect![[r#"
            #[idempotent]
                cannot parse this function: unexpected end of input, expected curly braces

            async fn place (order : String)"#]],
    );
    check_item(
        "async fn",
        &expect![[r#"
            #[idempotent]
                cannot parse this function: unexpected end of input, expected identifier

            async fn"#]],
    );
    check_item(
        "async",
        &expect![[r#"
            #[idempotent]
                cannot parse this function: unexpected end of input, expected `fn`

            async"#]],
    );
}

#[test]
fn items_that_are_not_handlers_are_refused() {
    check_item(
        "struct Order { symbol: String }",
        &expect![[r#"
            struct
                `#[idempotent]` goes on a handler, which is an `async fn`, and not on a struct

            struct Order {
                symbol: String,
            }
        "#]],
    );
    check_item(
        "pub(crate) enum Order { Buy }",
        &expect![[r#"
            enum
                `#[idempotent]` goes on a handler, which is an `async fn`, and not on an enum

            pub(crate) enum Order {
                Buy,
            }
        "#]],
    );
    check_item(
        "impl<T> Desk<T> { }",
        &expect![[r#"
            impl
                `#[idempotent]` goes on a handler, which is an `async fn`, and not on an `impl` block

            impl<T> Desk<T> {}
        "#]],
    );
    check_item(
        "async fn place(order: String) -> String;",
        &expect![[r#"
            place
                a method without a body is not a handler; put the attribute on an `async fn` with a body

            async fn place (order : String) -> String ;"#]],
    );
    check_item(
        "async |order: String| order",
        &expect![[r#"
            |
                `#[idempotent]` goes on a handler, which is an `async fn`, and not on a closure

        "#]],
    );
    check_item(
        "macro_rules! handler { () => { fn place() {} } }",
        &expect![[r#"
            macro_rules
                `#[idempotent]` goes on a handler, which is an `async fn`, and not on a macro

            macro_rules! handler {
                () => {
                    fn place() {}
                };
            }
        "#]],
    );
    check_item(
        "handlers::place!();",
        &expect![[r#"
            !
                `#[idempotent]` goes on a handler, which is an `async fn`, and not on the call of a macro

            handlers::place!();
        "#]],
    );
    check_item(
        "extern \"C\" { fn place(); }",
        &expect![[r#"
            extern
                `#[idempotent]` goes on a handler, which is an `async fn`, and not on an `extern` item

            extern "C" {
                fn place();
            }
        "#]],
    );
    check_item(
        "async fn place(order: ::axum_idem::__private::Deferred<String>) -> Response {}",
        &expect![[r#"
            #[idempotent]
                `#[idempotent]` is given twice; put all arguments into one

            async fn place(order: ::axum_idem::__private::Deferred<String>) -> Response {
                let _ = &order;
            }
        "#]],
    );
    check_item(
        "#[idempotent(ttl = \"1h\")] async fn place() {}",
        &expect![[r#"
            idempotent
                `#[idempotent]` is given twice; put all arguments into one

            async fn place() {}
        "#]],
    );
}
