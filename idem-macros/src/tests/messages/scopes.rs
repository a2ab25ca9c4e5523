//! Mistakes in scopes.

use expect_test::expect;

use super::{HANDLER, check_arguments, messages};

#[test]
fn mistakes_in_scopes_are_explained() {
    check_arguments(
        &[
            "scope = ()",
            "scope = 1",
            "scope = \"token\"",
            "scope = \"user\"",
            "scope = \"x-workspace-id\"",
            "scope = (\"token\", user.id)",
            "scope = header",
            "scope = header(\"bad header\")",
            "scope = header(\"\")",
            "scope = header(\"a\", \"b\")",
            "scope = header(name)",
            "scope = header[\"x-workspace-id\"]",
            "scope = \"Authorization\"",
            "scope = \"user.id\"",
            "scope = token()",
            "scope = token.sub",
            "scope = [token, user.id]",
            "scope = format!(\"{token}-{}\", user.id)",
            "scope = (token, (user.id, global))",
            "scope = authorization",
            "scope = usr.id",
            "scope = User",
            "scope = &acount.id.to_string()",
            "scope = (token, toke)",
            "scope = self.id",
            "scope = user.id().await",
            "scope = user.id()?",
            "scope = { if user.is_guest { return; } user.id }",
            "scope = vec![user.id, 1]",
            "scope = REGION",
            "scope = Config::get()",
            "scope = format!(\"{usr}\")",
            "scope = (1, 2)",
            "scope = (REGION, region)",
            "scope = format!(\"{}\", 5)",
            "scope = { let x = 5; x }",
            "scope = order",
            "scope = order.len()",
            "scope = format!(\"{}-{order}\", user.id)",
            "scope = user.",
            "scope = token, runtime = dsk.idem",
            "scope = token, runtime = order.idem",
            "scope = token, runtime = &Idempotency::in_memory()",
            "scope = token, runtime = axum_idem::Idempotency::builder().build()",
        ],
        &expect![[r##"
            #[idempotent(scope = ())]
            ()
                this scope is empty; write `token` (the `Authorization` header), `header("x-workspace-id")`, `global` (all callers share keys), or an expression that uses the handler's arguments, such as `user.id`
            #[idempotent(scope = 1)]
            1
                this scope is the same for every caller, because it uses no argument of the handler; write `token` (the `Authorization` header), `header("x-workspace-id")`, `global` (all callers share keys), or an expression that uses the handler's arguments, such as `user.id`
            #[idempotent(scope = "token")]
            "token"
                unexpected quotes around a scope; write `token`
            #[idempotent(scope = "user")]
            "user"
                unexpected quotes around a scope; write `user`
            #[idempotent(scope = "x-workspace-id")]
            "x-workspace-id"
                a scope of a header needs `header`; write `header("x-workspace-id")`
            #[idempotent(scope = ("token", user.id))]
            "token"
                unexpected quotes around a scope; write `token`
            #[idempotent(scope = header)]
            header
                `header` needs a name; write `header("x-workspace-id")`
            #[idempotent(scope = header("bad header"))]
            "bad header"
                `bad header` is not a valid name of a header; use letters, digits and `-`, such as `"x-workspace-id"`
            #[idempotent(scope = header(""))]
            ""
                `header` takes one header name in quotes; write `header("x-workspace-id")`
            #[idempotent(scope = header("a", "b"))]
            header("a", "b")
                `header` takes one header name in quotes; write `header("x-workspace-id")`
            #[idempotent(scope = header(name))]
            header(name)
                `header` takes one header name in quotes; write `header("x-workspace-id")`
            #[idempotent(scope = header["x-workspace-id"])]
            header
                `header` is not a variable, so an expression cannot use it; write `scope = header("x-workspace-id")`, or a tuple such as `(header("x-workspace-id"), user.id)`
            #[idempotent(scope = "Authorization")]
            "Authorization"
                unexpected quotes around a scope; write `token`
            #[idempotent(scope = "user.id")]
            "user.id"
                unexpected quotes around a scope; write `user.id`
            #[idempotent(scope = token())]
            token()
                `token` takes no arguments; write `token`
            #[idempotent(scope = token.sub)]
            token
                `token` is not a variable, so an expression cannot use it; write `scope = token`, or a tuple such as `(token, user.id)`
            #[idempotent(scope = [token, user.id])]
            [token, user.id]
                the parts of a scope need a tuple; write `(token, user.id)`
            #[idempotent(scope = format!("{token}-{}", user.id))]
            "{token}-{}"
                `token` is not a variable, so an expression cannot use it; write `scope = token`, or a tuple such as `(token, user.id)`
            #[idempotent(scope = (token, (user.id, global)))]
            (user.id, global)
                a scope is one tuple, without tuples inside; remove the inner parentheses
            #[idempotent(scope = authorization)]
            authorization
                no argument is named `authorization`; did you mean `token`? a scope is `token`, `header("…")`, `global`, or an expression that uses the handler's arguments: `user`
            #[idempotent(scope = usr.id)]
            usr
                no argument is named `usr`; did you mean `user`? a scope is `token`, `header("…")`, `global`, or an expression that uses the handler's arguments: `user`
            #[idempotent(scope = User)]
            User
                no argument is named `User`; did you mean `user`? a scope is `token`, `header("…")`, `global`, or an expression that uses the handler's arguments: `user`
            #[idempotent(scope = &acount.id.to_string())]
            acount
                no argument is named `acount`; a scope is `token`, `header("…")`, `global`, or an expression that uses the handler's arguments: `user`
            #[idempotent(scope = (token, toke))]
            toke
                no argument is named `toke`; did you mean `token`? a scope is `token`, `header("…")`, `global`, or an expression that uses the handler's arguments: `user`
            #[idempotent(scope = self.id)]
            self
                a handler has no `self`; use one of its arguments
            #[idempotent(scope = user.id().await)]
            await
                `scope` cannot use `.await`; move the `.await` into an extractor, and use its result
            #[idempotent(scope = user.id()?)]
            ?
                `scope` cannot use `?`; move the check into an extractor that rejects the request, and use its result
            #[idempotent(scope = { if user.is_guest { return; } user.id })]
            return
                `scope` cannot use `return`; write `if … { … } else { … }` with a value in each branch
            #[idempotent(scope = vec![user.id, 1])]
            vec![user.id, 1]
                the parts of a scope need a tuple; write `(user.id, 1)`
            #[idempotent(scope = REGION)]
            REGION
                this scope is the same for every caller, because it uses no argument of the handler; write `token` (the `Authorization` header), `header("x-workspace-id")`, `global` (all callers share keys), or an expression that uses the handler's arguments, such as `user.id`
            #[idempotent(scope = Config::get())]
            Config::get()
                this scope is the same for every caller, because it uses no argument of the handler; write `token` (the `Authorization` header), `header("x-workspace-id")`, `global` (all callers share keys), or an expression that uses the handler's arguments, such as `user.id`
            #[idempotent(scope = format!("{usr}"))]
            "{usr}"
                no argument is named `usr`; did you mean `user`? a scope is `token`, `header("…")`, `global`, or an expression that uses the handler's arguments: `user`
            #[idempotent(scope = (1, 2))]
            (1, 2)
                this scope is the same for every caller, because it uses no argument of the handler; write `token` (the `Authorization` header), `header("x-workspace-id")`, `global` (all callers share keys), or an expression that uses the handler's arguments, such as `user.id`
            #[idempotent(scope = (REGION, region))]
            region
                no argument is named `region`; a scope is `token`, `header("…")`, `global`, or an expression that uses the handler's arguments: `user`
            #[idempotent(scope = format!("{}", 5))]
            format!("{}", 5)
                this scope is the same for every caller, because it uses no argument of the handler; write `token` (the `Authorization` header), `header("x-workspace-id")`, `global` (all callers share keys), or an expression that uses the handler's arguments, such as `user.id`
            #[idempotent(scope = { let x = 5; x })]
            { let x = 5; x }
                this scope is the same for every caller, because it uses no argument of the handler; write `token` (the `Authorization` header), `header("x-workspace-id")`, `global` (all callers share keys), or an expression that uses the handler's arguments, such as `user.id`
            #[idempotent(scope = order)]
            order
                `order` comes from the body, which is extracted only after the key is known to be new; use an argument before `String`, such as the user or the path, or use `token` or `header("…")`
            #[idempotent(scope = order.len())]
            order
                `order` comes from the body, which is extracted only after the key is known to be new; use an argument before `String`, such as the user or the path, or use `token` or `header("…")`
            #[idempotent(scope = format!("{}-{order}", user.id))]
            "{}-{order}"
                `order` comes from the body, which is extracted only after the key is known to be new; use an argument before `String`, such as the user or the path, or use `token` or `header("…")`
            #[idempotent(scope = user.)]
            .
                cannot parse the value of `scope`: unexpected end of input, expected identifier or integer; for example, write `scope = token`
            #[idempotent(scope = token, runtime = dsk.idem)]
            dsk
                no argument is named `dsk`; a runtime is an expression that uses the handler's arguments: `user`
            #[idempotent(scope = token, runtime = order.idem)]
            order
                `order` comes from the body, which is extracted only after the key is known to be new; take the runtime from an argument before `String`
            #[idempotent(scope = token, runtime = &Idempotency::in_memory())]
            Idempotency::in_memory
                this creates a new `Idempotency` for each request, without the records of earlier requests; keep one in the service's state or in a `static`, and use that one
            #[idempotent(scope = token, runtime = axum_idem::Idempotency::builder().build())]
            axum_idem::Idempotency::builder
                this creates a new `Idempotency` for each request, without the records of earlier requests; keep one in the service's state or in a `static`, and use that one
        "##]],
    );
}

#[test]
fn valid_scopes_give_no_message() {
    for scope in [
        "token",
        "global",
        "(token)",
        "(header(\"x-workspace-id\"), user.id)",
        "user",
        "&user.id",
        "key(&user)",
        "crate::key(&user)",
        "(REGION, user.id)",
        "(REGION.name, token)",
        "(region, user.id)",
        "(global, REGION)",
        "(global, \"trades\")",
        "region.of(user.id)",
        "{ static region: &str = \"eu\"; format!(\"{region}{}\", user.id) }",
        "user.orders.iter().filter(|order| order.is_open()).count()",
        "format!(\"{order}\", order = user.id)",
        "if let Some(order) = user.order { order } else { 0 }",
        "user.ids.map(|id| { return id; })",
        "Region::of(&user)",
        "(\"trades\", user.id)",
        "token_of(&user)",
        "user.name.map_or(0, |token| token.len())",
        "match user.name { Some(token) => token.len(), None => 0 }",
        "user.name.as_deref().unwrap_or(\"none\")",
        "match user.kind { Kind::A => 1, _ => 2 }",
        "*user.id",
        "user.id as u64",
    ] {
        assert_eq!(
            messages(&format!("scope = {scope}"), HANDLER),
            "",
            "{scope}"
        );
    }
}
