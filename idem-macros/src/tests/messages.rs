//! Snapshots of the messages of the attribute, their positions, and the item that remains.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::entries::assert_entry;
use super::transform;

const HANDLER: &str = "async fn place(user: User, order: String) -> String { order }";

/// Returns every message of `#[idempotent(arguments)] item`, below the tokens that it points at.
pub(super) fn messages(arguments: &str, item: &str) -> String {
    let (_, mistakes) = transform(arguments, item);
    let mut text = String::new();
    for error in mistakes {
        let caret = error.span().source_text();
        let caret = caret.unwrap_or_else(|| "#[idempotent]".to_owned());
        let message = error.to_string();
        assert_entry(&message);
        writeln!(text, "{caret}\n    {message}").expect("writing to a string cannot fail");
    }
    text
}

pub(super) fn check_arguments(all: &[&str], expected: &Expect) {
    let mut text = String::new();
    for arguments in all {
        write!(
            text,
            "#[idempotent({arguments})]\n{}",
            messages(arguments, HANDLER)
        )
        .expect("writing to a string cannot fail");
    }
    expected.assert_eq(&text);
}

fn check_item(item: &str, expected: &Expect) {
    let (left, _) = transform("scope = token", item);
    expected.assert_eq(&format!("{}\n{left}", messages("scope = token", item)));
}

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

#[test]
fn mistakes_in_argument_values_are_explained() {
    check_arguments(
        &[
            "scope = token, ttl = 24",
            "scope = token, ttl = 24h",
            "scope = token, ttl = 24_h",
            "scope = token, ttl = 0",
            "scope = token, ttl = Duration::from_secs(5)",
            "scope = token, ttl = \"1.5h\"",
            "scope = token, ttl = \"30m1h\"",
            "scope = token, ttl = \"-1h\"",
            "scope = token, ttl = \"400d\"",
            "scope = token, ttl = \"\"",
            "scope = token, required = true, record_rejections = false",
            "scope = token, required(true)",
            "scope = token, transactional",
            "scope = token, record = [7xx, 99, 2XX, \"404\", all, 1xx, 400..499, 150, 20x]",
            "scope = token, record = []",
            "scope = token, record = 2xx",
            "scope = token, record = success",
            "scope = token, record_body = all",
            "scope = token, record_body = \"none\"",
            "scope = token, record_body",
            "scope = token, in_flight = queue",
            "scope = token, in_flight = \"reject\"",
            "scope = token, in_flight = wait",
            "scope = token, in_flight = wait()",
            "scope = token, in_flight = wait(\"soon\")",
            "scope = token, in_flight = wait(\"0s\")",
            "scope = token, in_flight = rejct",
            "scope = token, on_unknown = retry",
            "scope = token, on_unknown = \"hold\"",
            "scope = token, fingerprint = md5",
            "scope = token, fingerprint = \"json\"",
            "scope = token, fingerprint = json(\"amount\", total, \"/a~\")",
            "scope = token, fingerprint = json()",
            "scope = token, fingerprint = json(\"$.lines[0].price\", \"$\")",
            "scope = token, crate = \"idem\"",
            "scope = token, crate = 1",
        ],
        &expect![[r##"
            #[idempotent(scope = token, ttl = 24)]
            24
                `24` has no unit; write `"24s"` for seconds or `"24h"` for hours
            #[idempotent(scope = token, ttl = 24h)]
            24h
                a duration needs quotes; write `"24h"`
            #[idempotent(scope = token, ttl = 24_h)]
            24_h
                a duration needs quotes; write `"24h"`
            #[idempotent(scope = token, ttl = 0)]
            0
                `0` is zero; a duration must be positive, such as `"90s"` or `"24h"`
            #[idempotent(scope = token, ttl = Duration::from_secs(5))]
            Duration::from_secs(5)
                `ttl` takes a duration in quotes; write `"24h"`
            #[idempotent(scope = token, ttl = "1.5h")]
            "1.5h"
                `1.5h` has a fraction; combine whole numbers instead, such as `"1h30m"`
            #[idempotent(scope = token, ttl = "30m1h")]
            "30m1h"
                the units of `30m1h` are out of order; write each unit once, the largest first, such as `"1h30m"`
            #[idempotent(scope = token, ttl = "-1h")]
            "-1h"
                `-1h` is negative; a duration must be positive, such as `"1h"`
            #[idempotent(scope = token, ttl = "400d")]
            "400d"
                `400d` is longer than a year; the maximum is `"365d"`
            #[idempotent(scope = token, ttl = "")]
            ""
                a duration cannot be empty; write a number and `s`, `m`, `h` or `d`, such as `"90s"` or `"24h"`
            #[idempotent(scope = token, required = true, record_rejections = false)]
            true
                `required` takes no value; write `required` alone
            false
                `record_rejections` takes no value; remove it, because it is off by default
            #[idempotent(scope = token, required(true))]
            (true)
                `required` takes no value; write `required` alone
            #[idempotent(scope = token, transactional)]
            transactional
                `transactional` needs an argument `attempt: Attempt`; add it, and end the handler with `attempt.commit(tx, response).await`
            #[idempotent(scope = token, record = [7xx, 99, 2XX, "404", all, 1xx, 400..499, 150, 20x])]
            7xx
                `7xx` is not a class of statuses; the classes are `2xx`, `3xx`, `4xx` and `5xx`
            99
                99 is not a status; codes are 200 to 599, classes are `2xx` to `5xx`
            2XX
                classes are in lower case; write `2xx`
            "404"
                unexpected quotes around a status; write `404`
            all
                `all` cannot be in a list; write `record = all`
            1xx
                a `1xx` is not a final response; the classes are `2xx`, `3xx`, `4xx` and `5xx`
            400..499
                `record` takes no ranges; write a class, such as `4xx`
            150
                150 is not the status of a final response; codes are 200 to 599
            20x
                cannot read `20x` as a status; `record` takes status classes and codes, such as `[2xx, 4xx, 503]`, or `all`
            #[idempotent(scope = token, record = [])]
            []
                an empty `record` records no response, so every retry would run the handler again; list a class such as `2xx`, or remove `record`
            #[idempotent(scope = token, record = 2xx)]
            2xx
                `record` takes status classes and codes, such as `[2xx, 4xx, 503]`, or `all`; add brackets
            #[idempotent(scope = token, record = success)]
            success
                `record` takes status classes and codes, such as `[2xx, 4xx, 503]`, or `all`
            #[idempotent(scope = token, record_body = all)]
            all
                `record_body` must be `none`; remove the argument to record the whole body
            #[idempotent(scope = token, record_body = "none")]
            "none"
                unexpected quotes around the value of `record_body`; write `record_body = none`
            #[idempotent(scope = token, record_body)]
            record_body
                `record_body` needs `=` and a value; write `record_body = none`
            #[idempotent(scope = token, in_flight = queue)]
            queue
                `in_flight` must be `reject` or `wait("5s")`
            #[idempotent(scope = token, in_flight = "reject")]
            "reject"
                unexpected quotes around the value of `in_flight`; write `in_flight = reject`
            #[idempotent(scope = token, in_flight = wait)]
            wait
                `wait` needs a duration; write `wait("5s")`
            #[idempotent(scope = token, in_flight = wait())]
            wait()
                `wait` takes one duration; write `wait("5s")`
            #[idempotent(scope = token, in_flight = wait("soon"))]
            "soon"
                cannot read `soon` as a duration; write a number and `s`, `m`, `h` or `d`, such as `"90s"` or `"24h"`
            #[idempotent(scope = token, in_flight = wait("0s"))]
            "0s"
                `0s` is zero; a duration must be positive, such as `"90s"` or `"24h"`
            #[idempotent(scope = token, in_flight = rejct)]
            rejct
                did you mean `reject`? `in_flight` must be `reject` or `wait("5s")`
            #[idempotent(scope = token, on_unknown = retry)]
            retry
                `on_unknown` must be `rerun` or `hold`
            #[idempotent(scope = token, on_unknown = "hold")]
            "hold"
                unexpected quotes around the value of `on_unknown`; write `on_unknown = hold`
            #[idempotent(scope = token, fingerprint = md5)]
            md5
                `fingerprint` must be `body`, `json`, `json("/amount", "/currency")` or `none`
            #[idempotent(scope = token, fingerprint = "json")]
            "json"
                `fingerprint` must be `body`, `json`, `json("/amount", "/currency")` or `none`, without quotes
            #[idempotent(scope = token, fingerprint = json("amount", total, "/a~"))]
            "amount"
                a JSON pointer must begin with `/`; write `"/amount"`
            total
                a JSON pointer needs quotes, such as `"/amount"`
            "/a~"
                in a JSON pointer, write `~` as `~0`, and a `/` inside a name as `~1`
            #[idempotent(scope = token, fingerprint = json())]
            json()
                `json()` has no pointer; write `json` for the whole body, or `json("/amount")`
            #[idempotent(scope = token, fingerprint = json("$.lines[0].price", "$"))]
            "$.lines[0].price"
                a JSON pointer must begin with `/`; write `"/lines/0/price"`
            "$"
                an empty pointer means the whole body; write `fingerprint = json`
            #[idempotent(scope = token, crate = "idem")]
            "idem"
                unexpected quotes around a path; write `crate = idem`
            #[idempotent(scope = token, crate = 1)]
            1
                `crate` takes a path, such as `::axum_idem`
        "##]],
    );
}

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
        "##]],
    );
    let item = "async fn place(headers: HeaderMap, order: String) {}";
    expect![[r#"
        headers["x-tenant"]
            the value of a header does not implement `Display`; write `header("x-tenant")`
    "#]]
    .assert_eq(&messages("scope = headers[\"x-tenant\"]", item));
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
fn all_mistakes_are_reported_at_once() {
    let item = "fn place(order: &str, ...) {}";
    let arguments = "ttl = 24, required = 5, tll";
    let (_, mistakes) = transform(arguments, item);
    assert_eq!(mistakes.into_iter().count(), 7);
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
                `Json` reads the body, so it has to be the last argument; move it to the end

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
                `Form` reads the body, and so does `Json`; a body is read once, so keep one of them as the last argument

            async fn place() {}
        "#]],
    );
}

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

#[test]
fn mistakes_in_unknown_and_in_limits_are_explained() {
    check_arguments(
        &[
            "scope = token, unknown = all",
            "scope = token, unknown = 504",
            "scope = token, unknown = []",
            "scope = token, unknown = [5xx, 504, 99]",
            "scope = token, unknown = [5xx, 504]",
            "scope = token, record = [2xx, 5xx, 504], unknown = [504, 5xx]",
            "scope = token, record = [2xx, 503, 504], unknown = [5xx, 504]",
            "scope = token, record = all, unknown = [5xx]",
            "scope = token, record = [5xx], unknown = [504]",
            "scope = token, max_run = 15m, unknown",
            "scope = token, timeout = \"1m\"",
            "scope = token, max_running = 3, response_timeout = \"1s\", max_request_body = 1",
        ],
        &expect![[r##"
            #[idempotent(scope = token, unknown = all)]
            all
                `unknown` takes status classes and codes, such as `[502, 504]`
            #[idempotent(scope = token, unknown = 504)]
            504
                `unknown` takes status classes and codes, such as `[502, 504]`; add brackets
            #[idempotent(scope = token, unknown = [])]
            []
                an empty `unknown` changes nothing; list a status such as `504`, or remove `unknown`
            #[idempotent(scope = token, unknown = [5xx, 504, 99])]
            99
                99 is not a status; codes are 200 to 599, classes are `2xx` to `5xx`
            #[idempotent(scope = token, unknown = [5xx, 504])]
            504
                `504` is part of `5xx`; remove it
            #[idempotent(scope = token, record = [2xx, 5xx, 504], unknown = [504, 5xx])]
            504
                `504` is part of `5xx`; remove it
            504
                `504` is part of `5xx`; remove it
            #[idempotent(scope = token, record = [2xx, 503, 504], unknown = [5xx, 504])]
            504
                `504` is part of `5xx`; remove it
            #[idempotent(scope = token, record = all, unknown = [5xx])]
            #[idempotent(scope = token, record = [5xx], unknown = [504])]
            #[idempotent(scope = token, max_run = 15m, unknown)]
            15m
                a duration needs quotes; write `"15m"`
            unknown
                `unknown` needs `=` and a value; write `unknown = [502, 504]`
            #[idempotent(scope = token, timeout = "1m")]
            timeout
                unknown argument `timeout`; did you mean `max_run`? the arguments are `scope`, `key`, `ttl`, `required`, `record`, `record_rejections`, `record_body`, `in_flight`, `on_unknown`, `unknown`, `max_run`, `fingerprint`, `transactional`, `runtime` and `crate`
            #[idempotent(scope = token, max_running = 3, response_timeout = "1s", max_request_body = 1)]
            max_running
                `max_running` is a setting of the whole service, not of one endpoint; write `Idempotency::builder().max_running(…)`
            response_timeout
                `response_timeout` is a setting of the whole service, not of one endpoint; write `Idempotency::builder().response_timeout(…)`
            max_request_body
                `max_request_body` is a setting of the whole service, not of one endpoint; write `Idempotency::builder().max_request_body(…)`
        "##]],
    );
}
