//! A service with a sealed store and an id secret: what its servers, its network and its logs show, and what happens
//! when somebody changes the records.

mod leaks;
mod needles;
mod service;
mod tampering;
mod trail;

use test_support::{http as support, servers};
