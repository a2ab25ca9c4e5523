//! Aleta, a service for accounts of workspaces. A retried write takes effect once, and its replay is
//! identical.
//!
//! | row | what Aleta documents | how this example does it |
//! |---|---|---|
//! | 2, 3, 14 | every `POST`, `PUT`, `PATCH` and `DELETE` accepts a key, and `GET` ignores it | the attribute on every write |
//! | 5 | a key belongs to the workspace | `scope = client.workspace` |
//! | 5 | sandbox and production are separate | one namespace each, selected by `runtime = …` |
//! | 6 | any string of up to 255 bytes | `KeySyntax::Raw` |
//! | 7, 8, 11 | the whole response is replayed without a replay header | `Dialect::no_replay_header` |
//! | 9, 16 | a different body gets 409, and reformatted JSON is a different body | the default: the bytes of the body count |
//! | 12 | a key is free after 24 hours | `ttl = "24h"` |
//! | 13 | a record survives a failover | one store behind every server |
//!
//! Aleta's clients retry after 5xx and 429. These responses must not be recorded, because a retry would
//! only get them again. The default of `record` leaves them out.
//!
//! ```sh
//! cargo run --example aleta
//! STORE=sqlite://aleta.db cargo run --example aleta --features sqlite  # keeps the records in a file
//! # Open an account. Run this twice: the second response is identical.
//! curl -i localhost:3002/v1/accounts -H 'Authorization: Bearer aleta_sandbox_acme_1' -H 'Idempotency-Key: 7a3c8f5e' -H 'Content-Type: application/json' -d '{"entity_id": "ent_1", "institution": "Nordea"}'
//! # The same key in production is a separate key.
//! curl -i localhost:3002/v1/accounts -H 'Authorization: Bearer aleta_live_acme_1' -H 'Idempotency-Key: 7a3c8f5e' -H 'Content-Type: application/json' -d '{"entity_id": "ent_1", "institution": "Nordea"}'
//! # Change the account, and close it.
//! curl -i -X PATCH localhost:3002/v1/accounts/1 -H 'Authorization: Bearer aleta_sandbox_acme_1' -H 'Idempotency-Key: rename-1' -H 'Content-Type: application/json' -d '{"institution": "Danske Bank"}'
//! curl -i -X DELETE localhost:3002/v1/accounts/1 -H 'Authorization: Bearer aleta_sandbox_acme_1' -H 'Idempotency-Key: close-1'
//! # List the accounts in production.
//! curl localhost:3002/v1/accounts -H 'Authorization: Bearer aleta_live_acme_1'
//! ```

mod common;

use std::error::Error;

use axum::extract::{FromRef, FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::header::{HeaderName, LOCATION};
use axum::http::request::Parts;
use axum::routing::{get, put};
use axum::{Json, Router};
use axum_idem::store::Store;
use axum_idem::{Dialect, Idempotency, KeySyntax, idempotent};
use serde::{Deserialize, Serialize};

use common::{Bearer, Books, add};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    // Several servers share the store of a `redis://` or `postgres://` address.
    let keys = Keys::kept_in(&common::store::from_environment().await?);
    let idems = [&keys.sandbox, &keys.production];
    common::serve(include_str!("aleta.rs"), 3002, router(keys.clone()), &idems).await?;
    Ok(())
}

/// The settings of each environment. Both environments use one store with separate namespaces.
#[derive(Clone)]
pub(crate) struct Keys {
    sandbox: Idempotency,
    production: Idempotency,
}

impl Keys {
    pub(crate) fn kept_in(store: &(impl Store + Clone)) -> Self {
        let dialect = Dialect::default()
            .key_syntax(KeySyntax::Raw)
            .max_key_len(255)
            .no_replay_header()
            .documentation("https://docs.aleta.ciresk.com/idempotency");
        let of = |namespace| {
            let idem = Idempotency::builder()
                .store(store.clone())
                .dialect(dialect.clone());
            idem.namespace(namespace).build()
        };
        Self {
            sandbox: of("sandbox"),
            production: of("production"),
        }
    }

    fn of(&self, client: &Client) -> &Idempotency {
        match client.environment {
            Environment::Sandbox => &self.sandbox,
            Environment::Production => &self.production,
        }
    }
}

pub(crate) fn router(keys: Keys) -> Router {
    Router::new()
        .route("/v1/accounts", get(list_accounts).post(open_account))
        .route(
            "/v1/accounts/{id}",
            put(replace_account)
                .patch(change_account)
                .delete(close_account),
        )
        .with_state(Service {
            keys,
            books: Books::default(),
        })
}

#[derive(Clone, FromRef)]
struct Service {
    keys: Keys,
    books: Books<Aleta>,
}

type Created = (StatusCode, [(HeaderName, String); 1], Json<Account>);

#[idempotent(ttl = "24h", scope = client.workspace, runtime = keys.of(&client))]
async fn open_account(
    State(keys): State<Keys>,
    State(books): State<Books<Aleta>>,
    client: Client,
    Json(details): Json<Details>,
) -> Created {
    let account = books.open(|aleta| {
        add(&mut aleta.accounts, |id| Account {
            id,
            owner: client,
            details,
            is_closed: false,
        })
    });
    let location = format!("/v1/accounts/{}", account.id);
    (StatusCode::CREATED, [(LOCATION, location)], Json(account))
}

#[idempotent(ttl = "24h", scope = client.workspace, runtime = keys.of(&client))]
async fn replace_account(
    State(keys): State<Keys>,
    State(books): State<Books<Aleta>>,
    client: Client,
    Path(id): Path<usize>,
    Json(details): Json<Details>,
) -> Result<Json<Account>, StatusCode> {
    books.open(|aleta| {
        let account = aleta.account(&client, id)?;
        account.details = details;
        Ok(Json(account.clone()))
    })
}

#[idempotent(ttl = "24h", scope = client.workspace, runtime = keys.of(&client))]
async fn change_account(
    State(keys): State<Keys>,
    State(books): State<Books<Aleta>>,
    client: Client,
    Path(id): Path<usize>,
    Json(change): Json<Change>,
) -> Result<Json<Account>, StatusCode> {
    books.open(|aleta| {
        let account = aleta.account(&client, id)?;
        account.details.institution = change.institution;
        Ok(Json(account.clone()))
    })
}

/// Without the key, a retry of a successful deletion would get 404.
#[idempotent(ttl = "24h", scope = client.workspace, runtime = keys.of(&client))]
async fn close_account(
    State(keys): State<Keys>,
    State(books): State<Books<Aleta>>,
    client: Client,
    Path(id): Path<usize>,
) -> Result<StatusCode, StatusCode> {
    books.open(|aleta| {
        aleta.account(&client, id)?.is_closed = true;
        Ok(StatusCode::NO_CONTENT)
    })
}

async fn list_accounts(State(books): State<Books<Aleta>>, client: Client) -> Json<Vec<Account>> {
    let mut accounts = books.open(|aleta| aleta.accounts.clone());
    accounts.retain(|account| account.owner == client && !account.is_closed);
    Json(accounts)
}

/// The workspace of a token, and its environment. Tokens expire after an hour. `aleta_live_acme_1` and
/// `aleta_live_acme_2` both belong to Acme in production.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    environment: Environment,
    workspace: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Environment {
    Sandbox,
    Production,
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        const NOT_A_TOKEN: (StatusCode, &str) = (StatusCode::UNAUTHORIZED, "not a token of Aleta");
        let Bearer(token) = Bearer::from_request_parts(parts, state).await?;
        let mut words = token.split('_').skip_while(|word| *word == "aleta");
        let environment = match words.next() {
            Some("sandbox") => Environment::Sandbox,
            Some("live") => Environment::Production,
            _ => return Err(NOT_A_TOKEN),
        };
        let workspace = words.next().ok_or(NOT_A_TOKEN)?.to_owned();
        Ok(Self {
            environment,
            workspace,
        })
    }
}

#[derive(Debug, Default)]
struct Aleta {
    accounts: Vec<Account>,
}

impl Aleta {
    fn account(&mut self, client: &Client, id: usize) -> Result<&mut Account, StatusCode> {
        let mut own = self
            .accounts
            .iter_mut()
            .filter(|account| account.owner == *client);
        let account = own.find(|account| account.id == id && !account.is_closed);
        account.ok_or(StatusCode::NOT_FOUND)
    }
}

#[derive(Clone, Debug, Serialize)]
struct Account {
    id: usize,
    #[serde(skip)]
    owner: Client,
    #[serde(flatten)]
    details: Details,
    #[serde(skip)]
    is_closed: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Details {
    entity_id: String,
    institution: String,
}

#[derive(Debug, Deserialize)]
struct Change {
    institution: String,
}
