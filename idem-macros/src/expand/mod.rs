//! Writes the generated code: the expanded handler, or the function without the attribute when there are
//! mistakes. This folder reports no mistakes: it must not know which arguments and handlers are valid.

pub(crate) mod bounds;
pub(crate) mod facade;
pub(crate) mod facts;
pub(crate) mod fallback;
pub(crate) mod handler;
pub(crate) mod openapi;
pub(crate) mod parameters;
pub(crate) mod policy;
pub(crate) mod returns;
pub(crate) mod scope;
