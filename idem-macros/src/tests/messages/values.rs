//! Mistakes in the values of arguments, except scopes.

use expect_test::expect;

use super::check_arguments;

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
