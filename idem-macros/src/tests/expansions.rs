//! Snapshots of the code that the attribute generates.

use expect_test::{Expect, expect};

use super::{transform, transform_for};
use crate::parse::documenters::Documenters;

fn check(arguments: &str, item: &str, expected: &Expect) {
    let (item, mistakes) = transform(arguments, item);
    let messages: Vec<_> = mistakes
        .into_iter()
        .map(|error| error.to_string())
        .collect();
    assert_eq!(messages, [""; 0]);
    expected.assert_eq(&item);
}

#[test]
fn the_handler_of_the_readme_expands() {
    check(
        r#"ttl = "24h", scope = token"#,
        "async fn place_trade(
            State(desk): State<TradingDesk>,
            Path(account): Path<AccountId>,
            Json(order): Json<Order>,
        ) -> Result<(StatusCode, Json<Trade>), TradeError> {
            desk.place(account, order).await
        }",
        &expect![[r#"
            fn place_trade(
                State(desk): State<TradingDesk>,
                Path(account): Path<AccountId>,
                order: ::axum_idem::__private::Deferred<Json<Order>>,
            ) -> impl ::core::future::Future<Output = ::axum_idem::__private::Response> {
                static __IDEM_POLICY: ::axum_idem::__private::Policy = ::axum_idem::__private::Policy::new(
                        ::core::concat!(::core::module_path!(), "::place_trade"),
                    )
                    .ttl_millis(86_400_000);
                __IDEM_POLICY
                    .admit(order)
                    .token()
                    .run(async move |Json(order)| {
                        let _ = (&account, &desk);
                        if false {
                            return ::axum_idem::__private::never::<
                                Result<(StatusCode, Json<Trade>), TradeError>,
                            >();
                        }
                        desk.place(account, order).await
                    })
            }
        "#]],
    );
}

#[test]
fn a_handler_without_arguments_and_return_type_expands() {
    check(
        "scope = global",
        "pub async fn ping() {}",
        &expect![[r#"
            pub fn ping(
                __idem_body: ::axum_idem::__private::Deferred<()>,
            ) -> impl ::core::future::Future<Output = ::axum_idem::__private::Response> {
                static __IDEM_POLICY: ::axum_idem::__private::Policy = ::axum_idem::__private::Policy::new(
                    ::core::concat!(::core::module_path!(), "::ping"),
                );
                __IDEM_POLICY
                    .admit(__idem_body)
                    .global()
                    .run(async move |()| {
                        if false {
                            return;
                        }
                    })
            }
        "#]],
    );
}

#[test]
fn every_attribute_argument_expands() {
    check(
        r#"scope = (token, header("x-workspace-id"), user.id), ttl = "1h30m", required,
           record = [2xx, 503], record_rejections, in_flight = wait("5s"), on_unknown = hold,
           unknown = [5xx], max_run = "2m", fingerprint = json("/amount"), runtime = desk.idem, crate = idem"#,
        "async fn place(user: User, State(desk): State<Desk>, order: Bytes) -> StatusCode {
            desk.place(user, order).await
        }",
        &expect![[r#"
            fn place(
                user: User,
                State(desk): State<Desk>,
                order: idem::__private::Deferred<Bytes, true>,
            ) -> impl ::core::future::Future<Output = idem::__private::Response> {
                static __IDEM_POLICY: idem::__private::Policy = idem::__private::Policy::new(
                        ::core::concat!(::core::module_path!(), "::place"),
                    )
                    .ttl_millis(5_400_000)
                    .required()
                    .record(idem::__private::Statuses::NONE.class(2u16).code(503u16))
                    .record_rejections()
                    .wait_millis(5_000)
                    .hold_unknown()
                    .unknown(idem::__private::Statuses::NONE.class(5u16).without(503u16))
                    .max_run_millis(120_000)
                    .fingerprint(idem::__private::FingerprintMode::json_pointers(&["/amount"]));
                __IDEM_POLICY
                    .admit_on(order, || &desk.idem)
                    .token()
                    .header("x-workspace-id")
                    .value(|__idem_value| __idem_value.is(&user.id))
                    .run(async move |order| {
                        let _ = (&desk, &user);
                        if false {
                            return idem::__private::never::<StatusCode>();
                        }
                        desk.place(user, order).await
                    })
            }
        "#]],
    );
}

#[test]
fn unbound_parts_of_patterns_live_as_long_as_the_handler() {
    check(
        "scope = id",
        "async fn place(_: Permit, User { mut id, ref name, .. }: User, mut order: String) {
            order.push_str(name);
        }",
        &expect![[r#"
            fn place(
                __idem_arg_0: Permit,
                __idem_arg_1: User,
                order: ::axum_idem::__private::Deferred<String>,
            ) -> impl ::core::future::Future<Output = ::axum_idem::__private::Response> {
                static __IDEM_POLICY: ::axum_idem::__private::Policy = ::axum_idem::__private::Policy::new(
                    ::core::concat!(::core::module_path!(), "::place"),
                );
                __IDEM_POLICY
                    .admit(order)
                    .value(|__idem_value| {
                        let User { id, name: _, .. } = &__idem_arg_1;
                        __idem_value.is(id)
                    })
                    .run(async move |mut order| {
                        let _ = (&__idem_arg_1, &__idem_arg_0);
                        let User { mut id, ref name, .. } = __idem_arg_1;
                        let _ = &id;
                        if false {
                            return;
                        }
                        match () {
                            () => {
                                order.push_str(name);
                            }
                        }
                    })
            }
        "#]],
    );
}

#[test]
fn a_scope_may_name_the_last_argument() {
    check(
        "scope = order",
        "async fn cancel(Path(order): Path<u64>) -> StatusCode { cancel_order(order).await }",
        &expect![[r#"
            fn cancel(
                order: ::axum_idem::__private::Headed<Path<u64>>,
            ) -> impl ::core::future::Future<Output = ::axum_idem::__private::Response> {
                static __IDEM_POLICY: ::axum_idem::__private::Policy = ::axum_idem::__private::Policy::new(
                    ::core::concat!(::core::module_path!(), "::cancel"),
                );
                use ::axum_idem::__private::Split as _;
                let (Path(order), __idem_body) = order.split();
                __IDEM_POLICY
                    .admit(__idem_body)
                    .value(|__idem_value| __idem_value.is(&order))
                    .run(async move |()| {
                        let _ = &order;
                        if false {
                            return ::axum_idem::__private::never::<StatusCode>();
                        }
                        cancel_order(order).await
                    })
            }
        "#]],
    );
}

#[test]
fn generics_get_send_and_static_bounds() {
    check(
        "scope = token",
        "async fn place<R: Send, T>(State(desk): State<R>, Json(order): Json<T>) -> Json<T>
        where
            T: Order,
        {
            desk.place(order).await
        }",
        &expect![[r#"
            fn place<R: Send + 'static, T>(
                State(desk): State<R>,
                order: ::axum_idem::__private::Deferred<Json<T>>,
            ) -> impl ::core::future::Future<Output = ::axum_idem::__private::Response>
            where
                T: Order + ::core::marker::Send + 'static,
            {
                static __IDEM_POLICY: ::axum_idem::__private::Policy = ::axum_idem::__private::Policy::new(
                    ::core::concat!(::core::module_path!(), "::place"),
                );
                __IDEM_POLICY
                    .admit(order)
                    .token()
                    .run(async move |Json(order)| {
                        let _ = &desk;
                        if false {
                            return ::axum_idem::__private::never::<Json<T>>();
                        }
                        desk.place(order).await
                    })
            }
        "#]],
    );
}

#[test]
fn an_opaque_return_type_keeps_its_bounds() {
    check(
        "scope = token",
        "async fn watch<T: Order>(order: Json<T>) -> Sse<impl Stream<Item = Result<T, Infallible>>> {
            Sse::new(order.watch())
        }",
        &expect![[r#"
            fn watch<T: Order + ::core::marker::Send + 'static>(
                order: ::axum_idem::__private::Deferred<Json<T>>,
            ) -> impl ::core::future::Future<Output = ::axum_idem::__private::Response> {
                static __IDEM_POLICY: ::axum_idem::__private::Policy = ::axum_idem::__private::Policy::new(
                    ::core::concat!(::core::module_path!(), "::watch"),
                );
                __IDEM_POLICY
                    .admit(order)
                    .token()
                    .run(async move |order| {
                        {
                            fn __idem_returns<
                                __IdemType0: ?::core::marker::Sized,
                                __IdemOpaque1: Stream<Item = __IdemType0>,
                            >() -> Sse<__IdemOpaque1> {
                                ::axum_idem::__private::never()
                            }
                            if false {
                                return __idem_returns::<Result<T, Infallible>, _>();
                            }
                        }
                        Sse::new(order.watch())
                    })
            }
        "#]],
    );
}

#[test]
fn an_impl_into_response_expands_without_a_type_hint() {
    check(
        "scope = token",
        "async fn place(order: String) -> impl IntoResponse { order }",
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
                        {
                            fn __idem_traits<__T: IntoResponse>() {}
                        }
                        order
                    })
            }
        "#]],
    );
}

#[test]
fn an_opaque_return_type_may_stand_beside_self() {
    check(
        "scope = token",
        "async fn place(order: String) -> Result<impl IntoResponse, Self> { Ok(order) }",
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
                        {
                            fn __idem_traits<__T: IntoResponse>() {}
                        }
                        if false {
                            return ::axum_idem::__private::never::<Result<_, Self>>();
                        }
                        Ok(order)
                    })
            }
        "#]],
    );
}

#[test]
fn a_half_typed_body_still_expands() {
    check(
        "scope = token",
        "async fn place(order: String) -> String { let user = order. }",
        &expect![[
            r##"# [allow (unused_braces)] fn place (order : :: axum_idem :: __private :: Deferred < String >) -> impl :: core :: future :: Future < Output = :: axum_idem :: __private :: Response > { static __IDEM_POLICY : :: axum_idem :: __private :: Policy = :: axum_idem :: __private :: Policy :: new (:: core :: concat ! (:: core :: module_path ! () , "::place")) ; __IDEM_POLICY . admit (order) . token () . run (async move | order | { if false { return :: axum_idem :: __private :: never :: < String > () ; } { let user = order . } }) }"##
        ]],
    );
}

#[test]
fn half_typed_bodies_are_kept_in_the_expansion() {
    for body in [
        "desk.",
        "let order = ",
        "match order { Side::Buy => ",
        "if order.",
        "order.place(",
    ] {
        // The compiler closes open brackets before it calls an attribute.
        let closed = match body.chars().last() {
            Some('(') => format!("{body})"),
            _ if body.contains('{') => format!("{body}}}"),
            _ => body.to_owned(),
        };
        let item = format!("async fn place(desk: Desk, order: Order) -> Answer {{ {closed} }}");
        let (item, mistakes) = transform("scope = token", &item);
        assert!(mistakes.is_empty());
        let without_space = |text: &str| text.split_whitespace().collect::<String>();
        let item = without_space(&item);
        for part in ["desk", ": Desk", "<Order>", "<Answer>", &closed] {
            assert!(item.contains(&without_space(part)), "{part}: {item}");
        }
    }
}

#[test]
fn inner_attributes_move_to_the_function() {
    check(
        "scope = token",
        "/// Places it.
        async fn place(#[allow(unused)] order: String) { #![allow(unused_mut)] let mut x = 1; }",
        &expect![[r#"
            /// Places it.
            #[allow(unused_mut)]
            fn place(
                #[allow(unused)]
                order: ::axum_idem::__private::Deferred<String>,
            ) -> impl ::core::future::Future<Output = ::axum_idem::__private::Response> {
                static __IDEM_POLICY: ::axum_idem::__private::Policy = ::axum_idem::__private::Policy::new(
                    ::core::concat!(::core::module_path!(), "::place"),
                );
                __IDEM_POLICY
                    .admit(order)
                    .token()
                    .run(async move |#[allow(unused)] order| {
                        if false {
                            return;
                        }
                        let mut x = 1;
                    })
            }
        "#]],
    );
}

/// The types of the handler say what an operation does with a key.
#[test]
fn documented_handlers_expand() {
    let documenters = Documenters {
        aide: true,
        utoipa: true,
    };
    let (item, mistakes) = transform_for(
        documenters,
        "scope = token, required",
        "#[utoipa::path(post)] async fn place(order: Json<Order>) -> Json<Trade> { trade(order) }",
    );
    assert!(mistakes.is_empty());
    expect![[r##"
        #[utoipa::path(post, params(::axum_idem::__private::KeyParameter<5>))]
        async fn place(
            order: ::axum_idem::__private::Described<
                ::axum_idem::__private::Deferred<Json<Order>, true>,
                ::axum_idem::__private::Declared<Json<Trade>, 5>,
            >,
        ) -> ::axum_idem::__private::Response {
            static __IDEM_POLICY: ::axum_idem::__private::Policy = ::axum_idem::__private::Policy::new(
                    ::core::concat!(::core::module_path!(), "::place"),
                )
                .required();
            __IDEM_POLICY
                .admit(order.undescribed())
                .token()
                .run(async move |order| {
                    if false {
                        return ::axum_idem::__private::never::<Json<Trade>>();
                    }
                    trade(order)
                })
                .await
        }
    "##]].assert_eq(&item);
    let (item, mistakes) = transform_for(
        documenters,
        "scope = id",
        "async fn cancel(Path(id): Path<u64>) -> impl IntoResponse {}",
    );
    assert!(mistakes.is_empty());
    expect![[r#"
        fn cancel(
            id: ::axum_idem::__private::Described<
                ::axum_idem::__private::Headed<Path<u64>>,
                ::axum_idem::__private::Declared<::axum_idem::__private::Undeclared, 0>,
            >,
        ) -> impl ::core::future::Future<Output = ::axum_idem::__private::Response> {
            static __IDEM_POLICY: ::axum_idem::__private::Policy = ::axum_idem::__private::Policy::new(
                ::core::concat!(::core::module_path!(), "::cancel"),
            );
            use ::axum_idem::__private::Split as _;
            let __idem_last = id.undescribed();
            let (Path(id), __idem_body) = __idem_last.split();
            __IDEM_POLICY
                .admit(__idem_body)
                .value(|__idem_value| __idem_value.is(&id))
                .run(async move |()| {
                    let _ = &id;
                    {
                        fn __idem_traits<__T: IntoResponse>() {}
                    }
                })
        }
    "#]].assert_eq(&item);
}

#[test]
fn mutable_arguments_become_variables_of_the_handler() {
    check(
        "scope = (id, token)",
        "async fn place(user: User, Both(mut id, name): Both<Id, Name>, desk: Desk, mut order: String) -> String {
            id.0 = 1;
            order = name;
            format!(\"{user}{id}{desk}{order}\")
        }",
        &expect![[r#"
            fn place(
                user: User,
                __idem_arg_1: Both<Id, Name>,
                __idem_arg_2: Desk,
                order: ::axum_idem::__private::Deferred<String>,
            ) -> impl ::core::future::Future<Output = ::axum_idem::__private::Response> {
                static __IDEM_POLICY: ::axum_idem::__private::Policy = ::axum_idem::__private::Policy::new(
                    ::core::concat!(::core::module_path!(), "::place"),
                );
                __IDEM_POLICY
                    .admit(order)
                    .value(|__idem_value| {
                        let Both(id, _) = &__idem_arg_1;
                        __idem_value.is(id)
                    })
                    .token()
                    .run(async move |__idem_arg_3| {
                        let _ = (&__idem_arg_2, &__idem_arg_1, &user);
                        let Both(mut id, name) = __idem_arg_1;
                        let desk = __idem_arg_2;
                        let mut order = __idem_arg_3;
                        if false {
                            return ::axum_idem::__private::never::<String>();
                        }
                        match () {
                            () => {
                                id.0 = 1;
                                order = name;
                                format!("{user}{id}{desk}{order}")
                            }
                        }
                    })
            }
        "#]],
    );
    check(
        "scope = (id, token)",
        "#[instrument(skip(id))] async fn place(mut id: Id, order: String) -> String { id.0 = 1; order }",
        &expect![[r##"
            #[instrument(skip(id))]
            async fn place(
                id: Id,
                order: ::axum_idem::__private::Deferred<String>,
            ) -> ::axum_idem::__private::Response {
                static __IDEM_POLICY: ::axum_idem::__private::Policy = ::axum_idem::__private::Policy::new(
                    ::core::concat!(::core::module_path!(), "::place"),
                );
                __IDEM_POLICY
                    .admit(order)
                    .value(|__idem_value| {
                        let id = &id;
                        __idem_value.is(id)
                    })
                    .token()
                    .run(async move |order| {
                        let _ = &id;
                        let mut id = id;
                        if false {
                            return ::axum_idem::__private::never::<String>();
                        }
                        match () {
                            () => {
                                id.0 = 1;
                                order
                            }
                        }
                    })
                    .await
            }
        "##]],
    );
}
