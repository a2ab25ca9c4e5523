//! Reads the sealing keys and the id secret of the service, from the environment or from files. Other users of the
//! machine could read arguments.

use std::path::Path;

use axum_idem::store::Keys;
use zeroize::Zeroizing;

use crate::arguments::Shared;
use crate::failure::Failure;

/// A list of `ID:KEY`, the primary key first.
pub(crate) const KEYS: &str = "IDEM_SEAL_KEYS";
const ID_SECRET: &str = "IDEM_ID_SECRET";
/// The library refuses a shorter secret too.
const SHORTEST_SECRET: usize = 16;

/// The keys of the service's `Sealed` store.
pub(crate) struct SealingKeys {
    pub(crate) all: Keys,
    /// The first of them alone, which seals what the program writes.
    pub(crate) primary: Keys,
}

/// Reads the keys of the service's `Sealed` store. `None` when there are none.
pub(crate) fn keys(shared: &Shared) -> Result<Option<SealingKeys>, Failure> {
    let source = "the sealing keys";
    let Some(bytes) = read(source, KEYS, shared.seal_keys_file.as_deref())? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::Usage(format!("{source} are not text")))?;
    let parsed = |text: &str| {
        text.parse::<Keys>()
            .map_err(|error| Failure::Usage(format!("{source} cannot be read: {error}")))
    };
    let all = parsed(text)?;
    let primary = parsed(text.split_whitespace().next().unwrap_or_default())?;
    Ok(Some(SealingKeys { all, primary }))
}

/// Reads the bytes that the service passes to `id_secret`. `None` when there are none.
pub(crate) fn id_secret(shared: &Shared) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let secret = read("the id secret", ID_SECRET, shared.id_secret_file.as_deref())?;
    if secret
        .as_ref()
        .is_some_and(|secret| secret.len() < SHORTEST_SECRET)
    {
        return Err(Failure::Usage(format!(
            "the id secret has at least {SHORTEST_SECRET} bytes"
        )));
    }
    Ok(secret)
}

/// Reads a variable, or a file without the line break at its end.
fn read(
    what: &str,
    variable: &str,
    file: Option<&Path>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let value = std::env::var_os(variable);
    let value = value.map(|value| Zeroizing::new(value.into_encoded_bytes()));
    let Some(file) = file else {
        return Ok(value);
    };
    if value.is_some() {
        return Err(Failure::Usage(format!(
            "{what} must come either from {variable} or from a file"
        )));
    }
    let mut bytes = std::fs::read(file)
        .map(Zeroizing::new)
        .map_err(|error| Failure::Usage(format!("the file of {what} cannot be read: {error}")))?;
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    Ok(Some(bytes))
}
