//! One slip of the user gives one message.

use expect_test::expect;

use super::messages::{check_arguments, messages};

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
    let own_header = "async fn place(key: IdempotencyKey, order: String) {}";
    assert_eq!(messages("scope = key", own_header), "");
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
