//! Installs a rustls crypto provider.

use rustls::crypto::{CryptoProvider, ring};

/// Installs ring when the process has not installed a provider. With several providers compiled in
/// and none installed, rustls would panic at the first connection.
pub(super) fn ensure_cryptography() {
    if CryptoProvider::get_default().is_none() {
        // Another thread may install a provider first, which is fine.
        let _ = ring::default_provider().install_default();
    }
}
