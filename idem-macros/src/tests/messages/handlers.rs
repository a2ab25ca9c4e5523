//! Mistakes in the signature of a handler.

use expect_test::expect;

use super::{check_item, messages};

#[test]
fn valid_handler_arguments_give_no_message() {
    for arguments in [
        "State(quote): State<Arc<dyn Fn(&str) -> Price + Send + Sync>>",
        "State(quote): State<fn(&str) -> Price>",
        "Extension(name): Extension<&'static str>",
        "request: tracing::Request, order: String",
        "Path(ids): Path<Vec<u8>>, order: axum::extract::Json<Order>",
    ] {
        let item = format!("async fn place({arguments}) {{}}");
        assert_eq!(messages("scope = token", &item), "", "{arguments}");
    }
}

#[test]
fn wrong_function_qualifiers_are_explained() {
    check_item(
        "fn place(order: String) -> String { order }",
        &expect![[r#"
            fn
                a handler must be `async`; write `async fn`

            async fn place(order: String) -> String {
                let _ = &order;
                order
            }
        "#]],
    );
    check_item(
        "const unsafe extern \"C\" fn place() {}",
        &expect![[r#"
            const
                a handler cannot be `const`; write `async fn`
            unsafe
                a handler cannot be `unsafe`; remove `unsafe`, and write an `unsafe` block inside the handler
            extern "C"
                a handler uses the calling convention of Rust; remove `extern`

            async fn place() {}
        "#]],
    );
    check_item(
        "fn place() -> impl Future<Output = String> { ready(String::new()) }",
        &expect![[r#"
            fn
                a handler must be `async`; write `async fn`

            fn place() -> impl Future<Output = String> {
                ready(String::new())
            }
        "#]],
    );
}

#[test]
fn invalid_handler_arguments_are_explained() {
    check_item(
        "async fn place(&self, order: String) {}",
        &expect![[r#"
            &self
                methods with `self` are not handlers; move the body into a function without `self`

            async fn place(&self, order: String) {
                let _ = &order;
            }
        "#]],
    );
    check_item(
        "async fn place(desk: &Desk, name: &'static str) {}",
        &expect![[r#"
            &Desk
                a handler cannot borrow its arguments; take `Desk` by value, or through an extractor such as `State` or `Json`
            &'static str
                a handler cannot borrow its arguments; write `String`

            async fn place() {
                #[allow(dead_code)]
                async fn place(desk: &Desk, name: &'static str) {
                    let _ = &desk;
                    let _ = &name;
                }
            }
        "#]],
    );
    check_item(
        "async fn place(Path(name): Path<&str>, Query(at): Query<Vec<(u8, &[u8])>>, to: Path<Cow<'_, str>>, body: &Json<Order>) {}",
        &expect![[r#"
            &str
                a handler cannot borrow its arguments; write `String`
            &[u8]
                a handler cannot borrow its arguments; write `Bytes`
            '_
                a handler cannot borrow its arguments; write `'static`, or an owned type
            &Json<Order>
                a handler cannot borrow its arguments; take `Json<Order>` by value, or through an extractor such as `State` or `Json`

            async fn place() {
                #[allow(dead_code)]
                async fn place(
                    Path(name): Path<&str>,
                    Query(at): Query<Vec<(u8, &[u8])>>,
                    to: Path<Cow<'_, str>>,
                    body: &Json<Order>,
                ) {
                    let _ = &name;
                    let _ = &at;
                    let _ = &to;
                    let _ = &body;
                }
            }
        "#]],
    );
    check_item(
        "async fn place(State(desk): State<impl Desk>) {}",
        &expect![[r#"
            impl Desk
                a router cannot infer this type; declare a type parameter `R: Desk`, and name the type in the route, as in `post(place::<MyType>)`

            async fn place() {
                #[allow(dead_code)]
                async fn place(State(desk): State<impl Desk>) {
                    let _ = &desk;
                }
            }
        "#]],
    );
    check_item(
        "async fn place<'a>(#[cfg(test)] name: Name<'a>, desk: &'a Desk) {}",
        &expect![[r#"
            'a
                a handler may outlive its request, so it cannot borrow; remove the lifetime and take owned values
            #[cfg(test)]
                an argument cannot be conditional; put `#[cfg(…)]` on two versions of the handler

            async fn place<'a>() {
                #[allow(dead_code)]
                async fn place<'a>(#[cfg(test)] name: Name<'a>, desk: &'a Desk) {
                    let _ = &name;
                    let _ = &desk;
                }
            }
        "#]],
    );
    check_item(
        "async fn place(Json(order): Json<Order>, user: User) {}",
        &expect![[r#"
            Json<Order>
                `Json` reads the body, so it has to be the last argument; move it to the end; if this `Json` is your own type, import it under another name

            async fn place() {
                #[allow(dead_code)]
                async fn place(Json(order): Json<Order>, user: User) {
                    let _ = &order;
                    let _ = &user;
                }
            }
        "#]],
    );
    check_item(
        "async fn place(Self: Option<Form<Order>>, Json(order): Json<Order>) -> Self {}",
        &expect![[r#"
            Option<Form<Order>>
                `Form` reads the body, and so does `Json`; a body is read once, so keep one of them as the last argument; if this `Form` is your own type, import it under another name

            async fn place() {}
        "#]],
    );
}
