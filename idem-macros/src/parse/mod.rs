//! Parses the attribute's arguments and the annotated function into plain data, and reports text that
//! cannot be read.
//!
//! An *argument* belongs to the attribute, a *parameter* to the handler. Messages say "argument" for
//! both. This folder must not know which arguments fit which handler, nor what code they become.

pub(crate) mod argument_form;
pub(crate) mod attribute_args;
pub(crate) mod body_extractors;
pub(crate) mod captures;
pub(crate) mod documenters;
pub(crate) mod duration;
pub(crate) mod fingerprint;
pub(crate) mod handler;
pub(crate) mod names;
pub(crate) mod patterns;
pub(crate) mod request_types;
pub(crate) mod statuses;
pub(crate) mod stray;
