//! TODO

pub(crate) mod argument_form;
pub(crate) mod attribute;
pub(crate) mod body_extractors;
pub(crate) mod duration;
pub(crate) mod fingerprint;
pub(crate) mod handler;
pub(crate) mod names;
pub(crate) mod patterns;
pub(crate) mod statuses;
