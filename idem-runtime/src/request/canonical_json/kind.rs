//! The kinds of values in a canonical form.
//!
//! Each form starts with its kind, and texts and sequences carry their length. So two different
//! values, or two different sequences of values, never have the same form.

pub(super) const ABSENT: u8 = 0;
pub(super) const LITERAL: u8 = 1;
pub(super) const NUMBER: u8 = 2;
pub(super) const STRING: u8 = 3;
pub(super) const ARRAY: u8 = 4;
pub(super) const OBJECT: u8 = 5;
/// A number whose exponent has more than 18 digits, as text.
pub(super) const HUGE_NUMBER: u8 = 6;
