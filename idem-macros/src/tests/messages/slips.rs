//! Slips of the user, each of which gives one message.

use expect_test::expect;

use super::{HANDLER, check_arguments, check_item, messages};

#[test]
fn common_slips_are_explained() {
    check_arguments(
        &[
            "\"scope\" = token",
            "options(scope = token)",
            "axum_idem::scope = token",
            "scope = user.id, user.name",
            "scope = token, record = [2xx 4xx]",
            "scope = token, record = [2xx, 200, 2xx]",
            "scope = token, in_flight = \"wait\"",
            "scope = token, fingerprint = json([\"/a\"])",
            "scope = token, key_header = \"x-request-id\"",
            "scope = token, lease = \"30s\"",
            "\"token\"",
        ],
        &expect![[r##"
            #[idempotent("scope" = token)]
            "scope"
                unexpected quotes around an argument; write `scope = token`
            #[idempotent(options(scope = token))]
            options
                unknown argument `options`; the arguments are `scope`, `key`, `ttl`, `required`, `record`, `record_rejections`, `record_body`, `in_flight`, `on_unknown`, `unknown`, `max_run`, `fingerprint`, `transactional`, `runtime` and `crate`
            #[idempotent(axum_idem::scope = token)]
            axum_idem
                unknown argument `axum_idem`; the arguments are `scope`, `key`, `ttl`, `required`, `record`, `record_rejections`, `record_body`, `in_flight`, `on_unknown`, `unknown`, `max_run`, `fingerprint`, `transactional`, `runtime` and `crate`
            #[idempotent(scope = user.id, user.name)]
            user.name
                a scope with several parts is a tuple; write `scope = (user.id, user.name)`
            #[idempotent(scope = token, record = [2xx 4xx])]
            4xx
                cannot parse the value of `record`: expected `,` or `;`; for example, write `record = [2xx, 4xx]`
            #[idempotent(scope = token, record = [2xx, 200, 2xx])]
            200
                `200` is part of `2xx`; remove it
            2xx
                `2xx` is given twice; keep one of them
            #[idempotent(scope = token, in_flight = "wait")]
            "wait"
                unexpected quotes around the value of `in_flight`; write `in_flight = wait("5s")`
            #[idempotent(scope = token, fingerprint = json(["/a"]))]
            ["/a"]
                unexpected brackets around JSON pointers; write `json("/a")`
            #[idempotent(scope = token, key_header = "x-request-id")]
            key_header
                `key_header` is a setting of the whole service, not of one endpoint; write `Dialect::ietf().key_header(…)`
            #[idempotent(scope = token, lease = "30s")]
            lease
                `lease` is a setting of the whole service, not of one endpoint; write `Idempotency::builder().lease(…)`
            #[idempotent("token")]
            "token"
                unexpected quotes around a scope; write `scope = token`
        "##]],
    );
    let item = "async fn place(headers: HeaderMap, order: String) {}";
    expect![[r#"
        headers["x-tenant"]
            the value of a header does not implement `Display`; write `header("x-tenant")`
    "#]]
    .assert_eq(&messages("scope = headers[\"x-tenant\"]", item));
    expect![[r#"
        headers.get("x-tenant")
            the value of a header does not implement `Display`; write `header("x-tenant")`
        &headers["x-delivery"]
            the value of a header does not implement `Display`; write `header("x-delivery")`
    "#]]
    .assert_eq(&messages(
        "scope = headers.get(\"x-tenant\"), key = &headers[\"x-delivery\"]",
        item,
    ));
    let item = "async fn place(Query(headers): Query<HashMap<String, String>>, order: String) {}";
    expect![[""]].assert_eq(&messages("scope = headers[\"tenant\"]", item));
    check_item(
        "async fn place(order: String) -> Result<&str, Cow<'_, str>> { Ok(\"placed\") }",
        &expect![[r#"
            &str
                a handler may outlive its request, so it cannot borrow; write `&'static str`, or an owned type

            async fn place() {}
        "#]],
    );
    check_item(
        "async fn place(order: String) -> Json<Box<dyn Fn(&str) -> &str>> { shown() }",
        &expect![[r#"

            fn place(
                order: ::axum_idem::__private::Deferred<String>,
            ) -> impl ::core::future::Future<Output = ::axum_idem::__private::Response> {
                static __IDEM_POLICY: ::axum_idem::__private::Policy = ::axum_idem::__private::Policy::new(
                    ::core::concat!(::core::module_path!(), "::place"),
                );
                __IDEM_POLICY
                    .admit(order)
                    .token()
                    .run(async move |order| {
                        if false {
                            return ::axum_idem::__private::never::<
                                Json<Box<dyn Fn(&str) -> &str>>,
                            >();
                        }
                        shown()
                    })
            }
        "#]],
    );
    check_item(
        "#[tokio::main] async fn place(order: String) {}",
        &expect![[r#"
            tokio::main
                `#[tokio::main]` runs the function itself, but a router runs a handler; remove one of the attributes

            async fn place(order: String) {
                let _ = &order;
            }
        "#]],
    );
    check_item(
        "async fn place(order: String) -> ! { panic!() }",
        &expect![[r#"
            !
                a handler returns a response, and `!` is not a response; write `std::convert::Infallible`

            async fn place() {
                #[allow(dead_code)]
                async fn place(order: String) -> ! {
                    let _ = &order;
                    panic!()
                }
            }
        "#]],
    );
    check_item(
        "fn place<'async_trait>(order: String) -> Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>> {}",
        &expect![[r#"
            place
                `#[async_trait]` rewrote this function before `#[idempotent]` could read it; move the body into an `async fn` outside the trait, and put the attribute on that function

            fn place<'async_trait>(
                order: String,
            ) -> Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>> {
                let _ = &order;
            }
        "#]],
    );
}

#[test]
fn one_slip_gives_one_message() {
    check_arguments(
        &[
            "scope token",
            "scope user.id, required",
            "scope = token, ttl \"24h\"",
            "scope = token, required \"yes\"",
            "scope = token, ttl = 24 hours",
            "scope = token, in_flight = wait \"5s\"",
            "scope = token \"24h\"",
            "scope = token, tll \"24h\"",
            "scope = token; ttl = \"1h\"",
            "scope = token, record = 2xx, 4xx",
            "scope = token, unknown = 502, 504",
            "scope = token, record = [2xx], 4xx",
            "user.id",
            "claims.sub, ttl = \"1h\"",
            "(token, user.id)",
            "&user.id",
            "format!(\"{}\", user.id)",
            "tenant::current()",
            "header(\"x-tenant\"), required",
            "header",
            "token = \"x\"",
            "ttl = \"1h\", user.id",
            "scope = user.id, token",
            "scope = token, header(\"x-t\")",
            "scope = (token, user.id), user.name",
            "scope = token, ttl = \"1h\", required, ttl = \"2h\"",
            "scope = token, label, observer = x, redact",
        ],
        &expect![[r##"
            #[idempotent(scope token)]
            token
                expected `=`; write `scope = token`
            #[idempotent(scope user.id, required)]
            user
                expected `=`; write `scope = user.id`
            #[idempotent(scope = token, ttl "24h")]
            "24h"
                expected `=`; write `ttl = "24h"`
            #[idempotent(scope = token, required "yes")]
            "yes"
                `required` takes no value; write `required` alone
            #[idempotent(scope = token, ttl = 24 hours)]
            hours
                expected a comma after the value of `ttl`; for example, write `ttl = "24h"`
            #[idempotent(scope = token, in_flight = wait "5s")]
            "5s"
                expected a comma after the value of `in_flight`; for example, write `in_flight = wait("5s")`
            #[idempotent(scope = token "24h")]
            "24h"
                expected a comma after `token`
            #[idempotent(scope = token, tll "24h")]
            tll
                unknown argument `tll`; did you mean `ttl`? the arguments are `scope`, `key`, `ttl`, `required`, `record`, `record_rejections`, `record_body`, `in_flight`, `on_unknown`, `unknown`, `max_run`, `fingerprint`, `transactional`, `runtime` and `crate`
            #[idempotent(scope = token; ttl = "1h")]
            ;
                expected a comma after `token`
            #[idempotent(scope = token, record = 2xx, 4xx)]
            2xx
                `record` takes status classes and codes, such as `[2xx, 4xx, 503]`, or `all`; add brackets
            #[idempotent(scope = token, unknown = 502, 504)]
            502
                `unknown` takes status classes and codes, such as `[502, 504]`; add brackets
            #[idempotent(scope = token, record = [2xx], 4xx)]
            4xx
                `4xx` is not in the list; write it inside the brackets of `record`
            #[idempotent(user.id)]
            user.id
                `user.id` is a value of `scope`; write `scope = user.id`
            #[idempotent(claims.sub, ttl = "1h")]
            claims.sub
                `claims.sub` is a value of `scope`; write `scope = claims.sub`
            #[idempotent((token, user.id))]
            (token, user.id)
                `(token, user.id)` is a value of `scope`; write `scope = (token, user.id)`
            #[idempotent(&user.id)]
            &user.id
                `&user.id` is a value of `scope`; write `scope = &user.id`
            #[idempotent(format!("{}", user.id))]
            format!("{}", user.id)
                `format!("{}", user.id)` is a value of `scope`; write `scope = format!("{}", user.id)`
            #[idempotent(tenant::current())]
            tenant::current()
                `tenant::current()` is a value of `scope`; write `scope = tenant::current()`
            #[idempotent(header("x-tenant"), required)]
            header("x-tenant")
                `header("x-tenant")` is a value of `scope`; write `scope = header("x-tenant")`
            #[idempotent(header)]
            header
                `header` is a value of `scope`; write `scope = header("x-workspace-id")`
            #[idempotent(token = "x")]
            token
                `token` is a value of `scope`; write `scope = token`
            #[idempotent(ttl = "1h", user.id)]
            user.id
                `user.id` is a value of `scope`; write `scope = user.id`
            #[idempotent(scope = user.id, token)]
            token
                a scope with several parts is a tuple; write `scope = (user.id, token)`
            #[idempotent(scope = token, header("x-t"))]
            header("x-t")
                a scope with several parts is a tuple; write `scope = (token, header("x-t"))`
            #[idempotent(scope = (token, user.id), user.name)]
            user.name
                a scope with several parts is a tuple; write `scope = (token, user.id, user.name)`
            #[idempotent(scope = token, ttl = "1h", required, ttl = "2h")]
            ttl
                `ttl` is given twice; keep one of them
            #[idempotent(scope = token, label, observer = x, redact)]
            label
                `label` is a setting of the whole service, not of one endpoint; write `Idempotency::builder().label(…)`
            observer
                `observer` is a setting of the whole service, not of one endpoint; write `Idempotency::builder().observer(…)`
            redact
                `redact` is a setting of the whole service, not of one endpoint; write `Idempotency::builder().redact(…)`
        "##]],
    );
}

#[test]
fn the_key_of_the_endpoint_is_no_scope() {
    let check = |arguments: &str| {
        let item = "async fn receive(key: IdempotencyKey, event: String) {}";
        messages(&format!("key = {arguments}"), item)
    };
    let mut text = String::new();
    for arguments in [
        "header(\"x-id\"), scope = key",
        "header(\"x-id\"), scope = (token, key.as_str())",
        "key.as_str(), scope = global",
        "header(\"x-id\"), scope = global, runtime = key.runtime()",
    ] {
        text += &check(arguments);
    }
    expect![[r#"
        key
            `key` is the key, which is not known yet; a `scope` uses other arguments of the handler
        key
            `key` is the key, which is not known yet; a `scope` uses other arguments of the handler
        key
            `key` is the key that this argument chooses; use another argument of the handler, or `header("…")`
        key
            `key` is the key, which is not known yet; a `runtime` uses other arguments of the handler
    "#]].assert_eq(&text);
}

/// Otherwise each key would be a caller of its own, and two callers with equal keys would share a record.
#[test]
fn what_names_the_operation_is_no_scope() {
    let item = "async fn receive((attempt, Extension(key)): (Attempt, Extension<IdempotencyKey>), user: User, headers: HeaderMap, event: String) {}";
    let mut text = String::new();
    for arguments in [
        "scope = key",
        "scope = (user.id, format!(\"{key}\"))",
        "scope = header(\"idempotency-KEY\")",
        "scope = (token, header(\"X-id\")), key = header(\"x-ID\")",
        "scope = headers[\"idempotency-key\"]",
        "scope = attempt.number()",
        "scope = token, key = attempt.derive_key(\"event\")",
        "scope = token, runtime = attempt.idempotency()",
    ] {
        text += &messages(arguments, item);
    }
    expect![[r#"
        key
            `key` names the operation, not the caller; use `token`, `header("x-workspace-id")`, or an argument that identifies the caller, such as `user.id`
        "{key}"
            `key` names the operation, not the caller; use `token`, `header("x-workspace-id")`, or an argument that identifies the caller, such as `user.id`
        "idempotency-KEY"
            `header("idempotency-KEY")` names the operation, not the caller; use `token`, `header("x-workspace-id")`, or an argument that identifies the caller, such as `user.id`
        "X-id"
            `header("X-id")` names the operation, not the caller; use `token`, `header("x-workspace-id")`, or an argument that identifies the caller, such as `user.id`
        "idempotency-key"
            `header("idempotency-key")` names the operation, not the caller; use `token`, `header("x-workspace-id")`, or an argument that identifies the caller, such as `user.id`
        attempt
            `attempt` is the attempt, which begins only after `scope` is evaluated; use `token`, `header("x-workspace-id")`, or an argument that identifies the caller, such as `user.id`
        attempt
            `attempt` is the attempt, which begins only after `key` is evaluated; use another argument of the handler, or `header("…")`
        attempt
            `attempt` is the attempt, which begins only after `runtime` is evaluated; take the runtime from another argument
    "#]].assert_eq(&text);
    for (scope, item) in [
        (
            "key",
            "async fn place(Path(key): Path<u64>, order: String) {}",
        ),
        (
            "attempt.student",
            "async fn place(attempt: exams::Attempt, order: String) {}",
        ),
        (
            "attempt.id",
            "async fn place(attempt: LoginAttempt, key: IdempotencyKey, order: String) {}",
        ),
        ("header(\"x-id\")", HANDLER),
    ] {
        assert_eq!(messages(&format!("scope = {scope}"), item), "", "{scope}");
    }
    let runtime = "scope = token, runtime = desks.of(&key)";
    assert_eq!(
        messages(
            runtime,
            "async fn place(key: IdempotencyKey, desks: Desks, order: String) {}"
        ),
        ""
    );
}

#[test]
fn a_part_of_a_scope_that_adds_nothing_is_a_mistake() {
    check_arguments(
        &[
            "scope = (global, token)",
            "scope = (user.id, global)",
            "scope = (token, token, token)",
            "scope = (user.id, token, user.id)",
            "scope = (header(\"X-id\"), header(\"x-ID\"))",
        ],
        &expect![[r##"
            #[idempotent(scope = (global, token))]
            global
                `global` adds nothing beside `token`; remove `global`
            #[idempotent(scope = (user.id, global))]
            global
                `global` adds nothing beside `user.id`; remove `global`
            #[idempotent(scope = (token, token, token))]
            token
                `token` is given twice; keep one of them
            token
                `token` is given twice; keep one of them
            #[idempotent(scope = (user.id, token, user.id))]
            user.id
                `user.id` is given twice; keep one of them
            #[idempotent(scope = (header("X-id"), header("x-ID")))]
            header("x-ID")
                `header("x-ID")` is given twice; keep one of them
        "##]],
    );
}

#[test]
fn recording_that_has_no_effect_is_a_mistake() {
    check_arguments(
        &[
            "scope = token, fingerprint = none, record_rejections",
            "scope = token, unknown = [2xx]",
            "scope = token, unknown = [504, 2xx], record = all",
            "scope = token, unknown = [2xx], record = [2xx]",
            "scope = token, unknown = [2xx], record = [201]",
            "scope = token, unknown = [202], record = [4xx]",
        ],
        &expect![[r#"
            #[idempotent(scope = token, fingerprint = none, record_rejections)]
            record_rejections
                `record_rejections` has no effect with `fingerprint = none`, because the rejection of a streamed body is never recorded; remove one of them
            #[idempotent(scope = token, unknown = [2xx])]
            2xx
                with `2xx` in `unknown`, no success is ever recorded; list the codes of an unknown outcome, such as `504`
            #[idempotent(scope = token, unknown = [504, 2xx], record = all)]
            2xx
                with `2xx` in `unknown`, no success is ever recorded; list the codes of an unknown outcome, such as `504`
            #[idempotent(scope = token, unknown = [2xx], record = [2xx])]
            2xx
                `2xx` is in `record` too, and a response is either recorded or of unknown outcome; keep `2xx` in one of the two lists
            #[idempotent(scope = token, unknown = [2xx], record = [201])]
            #[idempotent(scope = token, unknown = [202], record = [4xx])]
        "#]],
    );
}

#[test]
fn raw_names_of_arguments_are_the_same_names() {
    check_arguments(
        &[
            "scope = token, ttl = \"1h\", r#ttl = \"2h\"",
            "scope = token, r#scope = global",
            "r#scope",
            "r#scope =",
            "r#scope token",
            "r#token",
            "scope = token, r#required = 5",
            "scope = token, r#in_flight = wait 5",
            "scope = token, r#in-flight = reject",
            "scope = token, in-r#flight = reject",
            "scope = 'static",
        ],
        &expect![[r##"
            #[idempotent(scope = token, ttl = "1h", r#ttl = "2h")]
            r#ttl
                `ttl` is given twice; keep one of them
            #[idempotent(scope = token, r#scope = global)]
            r#scope
                `scope` is given twice; keep one of them
            #[idempotent(r#scope)]
            r#scope
                `scope` needs `=` and a value; write `scope = token`
            #[idempotent(r#scope =)]
            =
                `scope` has no value; write `scope = token`
            #[idempotent(r#scope token)]
            token
                expected `=`; write `scope = token`
            #[idempotent(r#token)]
            r#token
                `token` is a value of `scope`; write `scope = token`
            #[idempotent(scope = token, r#required = 5)]
            5
                `required` takes no value; write `required` alone
            #[idempotent(scope = token, r#in_flight = wait 5)]
            5
                expected a comma after the value of `in_flight`; for example, write `in_flight = wait("5s")`
            #[idempotent(scope = token, r#in-flight = reject)]
            r#in
                the name of this argument has underscores; write `in_flight`
            #[idempotent(scope = token, in-r#flight = reject)]
            in
                the name of this argument has underscores; write `in_flight`
            #[idempotent(scope = 'static)]
            'static
                cannot parse the value of `scope`: unexpected lifetime; for example, write `scope = token`
        "##]],
    );
}

#[test]
fn the_variable_of_a_macro_is_no_scope() {
    let item = "async fn place(state!(app): State<App>, order: String) {}";
    let mut text = String::new();
    for arguments in [
        "scope = app.tenant",
        "scope = (token, app)",
        "scope = token, runtime = app.idem",
        "scope = ap.tenant",
    ] {
        text += &messages(arguments, item);
    }
    expect![[r#"
        app
            `app` is an argument of the macro `state!`, and `scope` cannot use the variables of a macro; write the pattern without the macro
        app
            `app` is an argument of the macro `state!`, and `scope` cannot use the variables of a macro; write the pattern without the macro
        app
            `app` is an argument of the macro `state!`, and `runtime` cannot use the variables of a macro; write the pattern without the macro
        ap
            no argument is named `ap`; a scope is `token`, `header("…")`, `global`, or an expression that uses the handler's arguments
    "#]].assert_eq(&text);
}

#[test]
fn a_constant_of_a_function_type_is_no_function() {
    for (item, name) in [
        ("const PLACE: fn(String) -> String = f;", "a constant"),
        ("pub static PLACE: fn(String) = f;", "a static"),
        ("type Place = fn(String);", "a type alias"),
    ] {
        let text = messages("scope = token", item);
        assert!(text.contains(&format!("not on {name}")), "{text}");
    }
    let text = messages("scope = token", "asyn fn place() -> impl Sized {}");
    assert!(text.contains("cannot parse this function"), "{text}");
}

/// An argument of the handler distinguishes requests, so another name may be a static or a function.
#[test]
fn a_key_may_use_other_names_beside_an_argument() {
    let item = "async fn receive(Query(event): Query<Event>, Extension(desk): Extension<Desk>) {}";
    for arguments in [
        "scope = global, key = registry.key_of(event.id)",
        "scope = global, key = apply(normalize, event.id)",
        "scope = global, key = event.id, runtime = runtimes.of(desk)",
        "scope = format!(\"{type}\")",
    ] {
        let item = item
            .replace("desk)", "r#type)")
            .replace("Path(desk", "Path(r#type");
        let item = if arguments.contains("{type}") {
            item
        } else {
            item.replace("r#type", "desk")
        };
        assert_eq!(messages(arguments, &item), "", "{arguments}");
    }
    let misspelt = messages("scope = global, key = evnt.id", item);
    assert!(misspelt.contains("did you mean `event`"), "{misspelt}");
}
