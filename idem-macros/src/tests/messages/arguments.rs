//! Mistakes in the list of arguments.

use expect_test::expect;

use super::check_arguments;

#[test]
fn mistakes_in_the_argument_list_are_explained() {
    check_arguments(
        &[
            "",
            "ttl = \"1h\", required",
            "scope = token, tll = \"1h\"",
            "scope = token, frobnicate",
            "scope = token, expires = \"1h\"",
            "token",
            "header(\"x-workspace-id\")",
            "scop = token",
            "scope = token, ttl = \"1h\", required, ttl = \"2h\"",
            "scope = token, \"1h\", tll",
            "scope = token ttl = \"x\"",
            "scope = token, ttl: \"1h\"",
            "scope = , ttl = , required",
            "scope, ttl, runtime, record, crate",
            "scope(token), ttl(\"1h\")",
            "scope = token, in-flight = reject, on-unkown = hold",
            "scope = token, store = redis",
        ],
        &expect![[r##"
            #[idempotent()]
            #[idempotent]
                `scope` is missing, so two callers with equal keys would share a record; write `scope = …` with `token` (the `Authorization` header), `header("x-workspace-id")`, `global` (all callers share keys), or an expression that uses the handler's arguments, such as `user.id`
            #[idempotent(ttl = "1h", required)]
            #[idempotent]
                `scope` is missing, so two callers with equal keys would share a record; write `scope = …` with `token` (the `Authorization` header), `header("x-workspace-id")`, `global` (all callers share keys), or an expression that uses the handler's arguments, such as `user.id`
            #[idempotent(scope = token, tll = "1h")]
            tll
                unknown argument `tll`; did you mean `ttl`? the arguments are `scope`, `key`, `ttl`, `required`, `record`, `record_rejections`, `record_body`, `in_flight`, `on_unknown`, `unknown`, `max_run`, `fingerprint`, `transactional`, `runtime` and `crate`
            #[idempotent(scope = token, frobnicate)]
            frobnicate
                unknown argument `frobnicate`; the arguments are `scope`, `key`, `ttl`, `required`, `record`, `record_rejections`, `record_body`, `in_flight`, `on_unknown`, `unknown`, `max_run`, `fingerprint`, `transactional`, `runtime` and `crate`
            #[idempotent(scope = token, expires = "1h")]
            expires
                unknown argument `expires`; did you mean `ttl`? the arguments are `scope`, `key`, `ttl`, `required`, `record`, `record_rejections`, `record_body`, `in_flight`, `on_unknown`, `unknown`, `max_run`, `fingerprint`, `transactional`, `runtime` and `crate`
            #[idempotent(token)]
            token
                `token` is a value of `scope`; write `scope = token`
            #[idempotent(header("x-workspace-id"))]
            header("x-workspace-id")
                `header("x-workspace-id")` is a value of `scope`; write `scope = header("x-workspace-id")`
            #[idempotent(scop = token)]
            scop
                unknown argument `scop`; did you mean `scope`? the arguments are `scope`, `key`, `ttl`, `required`, `record`, `record_rejections`, `record_body`, `in_flight`, `on_unknown`, `unknown`, `max_run`, `fingerprint`, `transactional`, `runtime` and `crate`
            #[idempotent(scope = token, ttl = "1h", required, ttl = "2h")]
            ttl
                `ttl` is given twice; keep one of them
            #[idempotent(scope = token, "1h", tll)]
            "1h"
                expected an argument: `scope`, `key`, `ttl`, `required`, `record`, `record_rejections`, `record_body`, `in_flight`, `on_unknown`, `unknown`, `max_run`, `fingerprint`, `transactional`, `runtime` or `crate`
            tll
                unknown argument `tll`; did you mean `ttl`? the arguments are `scope`, `key`, `ttl`, `required`, `record`, `record_rejections`, `record_body`, `in_flight`, `on_unknown`, `unknown`, `max_run`, `fingerprint`, `transactional`, `runtime` and `crate`
            #[idempotent(scope = token ttl = "x")]
            ttl
                expected a comma before the next argument
            "x"
                cannot read `x` as a duration; write a number and `s`, `m`, `h` or `d`, such as `"90s"` or `"24h"`
            #[idempotent(scope = token, ttl: "1h")]
            :
                expected `=`; write `ttl = "24h"`
            #[idempotent(scope = , ttl = , required)]
            =
                `scope` has no value; write `scope = token`
            =
                `ttl` has no value; write `ttl = "24h"`
            #[idempotent(scope, ttl, runtime, record, crate)]
            scope
                `scope` needs `=` and a value; write `scope = token`
            ttl
                `ttl` needs `=` and a value; write `ttl = "24h"`
            runtime
                `runtime` needs `=` and a value; write `runtime = desk.idempotency`
            record
                `record` needs `=` and a value; write `record = [2xx, 4xx]`
            crate
                `crate` needs `=` and a value; write `crate = ::axum_idem`
            #[idempotent(scope(token), ttl("1h"))]
            (token)
                `scope` needs `=` and a value; write `scope = token`
            ("1h")
                `ttl` needs `=` and a value; write `ttl = "24h"`
            #[idempotent(scope = token, in-flight = reject, on-unkown = hold)]
            in
                the name of this argument has underscores; write `in_flight`
            on
                unknown argument `on_unkown`; did you mean `on_unknown`? the arguments are `scope`, `key`, `ttl`, `required`, `record`, `record_rejections`, `record_body`, `in_flight`, `on_unknown`, `unknown`, `max_run`, `fingerprint`, `transactional`, `runtime` and `crate`
            #[idempotent(scope = token, store = redis)]
            store
                unknown argument `store`; did you mean `runtime`? the arguments are `scope`, `key`, `ttl`, `required`, `record`, `record_rejections`, `record_body`, `in_flight`, `on_unknown`, `unknown`, `max_run`, `fingerprint`, `transactional`, `runtime` and `crate`
        "##]],
    );
}
