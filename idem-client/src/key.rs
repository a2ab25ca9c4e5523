//! Where the keys of operations come from.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};
use uuid::Uuid;

use crate::failure::{Failure, Reason};
use crate::policy::Policy;

/// The name of an operation, whose key a [`KeyStore`] keeps across a crash of the client.
///
/// A name identifies one operation for ever, such as `"pay invoice 17"`. A second operation with the same name would
/// get the response of the first operation.
///
/// ```no_run
/// # async fn run(client: reqwest_middleware::ClientWithMiddleware) -> reqwest_middleware::Result<()> {
/// use idem_client::Operation;
///
/// let request = client.post("http://127.0.0.1:3000/payments");
/// request.with_extension(Operation::named("pay invoice 17")).send().await?;
/// # Ok(())
/// # }
/// ```
///
/// With the tower layer, insert it into the extensions of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation(Arc<str>);

impl Operation {
    /// Names the operation of a request.
    #[must_use]
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }
}

/// The future of a [`KeyStore`].
pub type KeyFuture<'a> =
    Pin<Box<dyn Future<Output = Result<String, Box<dyn Error + Send + Sync>>> + Send + 'a>>;

/// Keeps the keys of named operations across a crash of the client.
///
/// A client that crashes after it has sent a request does not know whether the operation happened. When it starts
/// again, it must repeat the request with the same key. The store is asked only for requests with an [`Operation`].
///
/// This store keeps each key in a file:
///
/// ```
/// use std::fs::{self, File};
/// use std::io::{ErrorKind, Write};
/// use std::path::PathBuf;
///
/// use idem_client::{KeyFuture, KeyStore};
///
/// pub struct KeyFiles(pub PathBuf);
///
/// impl KeyFiles {
///     /// Writes the key to a second file and links it, so that a crash leaves no half-written key.
///     fn keep(&self, operation: &str, fresh: &str) -> std::io::Result<String> {
///         let name = operation.bytes().map(|byte| format!("{byte:02x}"));
///         let path = self.0.join(name.collect::<String>());
///         let draft = self.0.join(format!("{fresh}.draft"));
///         let mut file = File::create_new(&draft)?;
///         file.write_all(fresh.as_bytes())?;
///         file.sync_all()?;
///         let linked = fs::hard_link(&draft, &path);
///         fs::remove_file(&draft)?;
///         match linked {
///             // The call that has linked the file may not have synced the folder yet.
///             Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
///             _ => File::open(&self.0)?.sync_all()?,
///         }
///         fs::read_to_string(path)
///     }
/// }
///
/// impl KeyStore for KeyFiles {
///     fn key<'a>(&'a self, operation: &'a str, fresh: String) -> KeyFuture<'a> {
///         Box::pin(async move { Ok(self.keep(operation, &fresh)?) })
///     }
/// }
/// # let folder = tempfile::tempdir().unwrap();
/// # let keys = KeyFiles(folder.path().to_owned());
/// # assert_eq!(keys.keep("pay", "a").unwrap(), "a");
/// # assert_eq!(keys.keep("pay", "b").unwrap(), "a");
/// # assert_eq!(keys.keep("refund", "b").unwrap(), "b");
/// ```
pub trait KeyStore: Send + Sync + 'static {
    /// Returns the key of an operation. When the store has no key for it, the store keeps `fresh` and returns it.
    ///
    /// The deadline of the policy begins when the future completes, so the store limits its own time.
    ///
    /// The key must survive a crash when the future completes, because the client sends the request then. Of two
    /// calls at the same time, both must return the same key. The client never removes a key: remove it after the
    /// outcome of the operation is stored, because a repeated operation without its key would run again.
    fn key<'a>(&'a self, operation: &'a str, fresh: String) -> KeyFuture<'a>;
}

/// The source of the keys of one client.
#[derive(Clone, Default)]
pub(crate) struct Keys(pub(crate) Option<Arc<dyn KeyStore>>);

/// The key of one call.
#[derive(Debug)]
pub(crate) struct Assigned {
    /// The value of the key header. `None` for a read.
    pub(crate) key: Option<String>,
    /// Whether the key store had the key from an earlier call.
    pub(crate) was_kept: bool,
}

impl Keys {
    /// Gives a write its key, unless the caller has set a key.
    pub(crate) async fn assign(
        &self,
        policy: &Policy,
        method: &Method,
        headers: &mut HeaderMap,
        operation: Option<&Operation>,
    ) -> Result<Assigned, Failure> {
        let of_this_call = |key| Assigned {
            key,
            was_kept: false,
        };
        if let Some(key) = headers.get(&policy.key_header) {
            return Ok(of_this_call(Some(printed(key))));
        }
        if !Policy::needs_key(method) {
            return Ok(of_this_call(None));
        }
        let fresh = Uuid::new_v4().to_string();
        let key = match (operation, &self.0) {
            (None, _) => fresh.clone(),
            (Some(_), None) => return Err(Failure::new(Reason::NoKeyStore)),
            (Some(Operation(name)), Some(store)) => store
                .key(name, fresh.clone())
                .await
                .map_err(|error| Failure::new(Reason::KeyStore).caused_by(error))?,
        };
        let value = policy.key_value(&key);
        let value = value.ok_or_else(|| Failure::new(Reason::InvalidKey))?;
        let assigned = Assigned {
            key: Some(printed(&value)),
            was_kept: key != fresh,
        };
        headers.insert(policy.key_header.clone(), value);
        Ok(assigned)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Keys(store)"
        } else {
            "Keys"
        })
    }
}

fn printed(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
