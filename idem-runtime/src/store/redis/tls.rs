//! Sees that rustls has its cryptography.

use rustls::crypto::{CryptoProvider, ring};

/// Chooses ring where the process has not chosen. With several choices compiled in and none made,
/// rustls would panic at the first connection.
pub(super) fn ensure_cryptography() {
    if CryptoProvider::get_default().is_none() {
        // Another thread may be first, which is as good.
        let _ = ring::default_provider().install_default();
    }
}
