//! What the stack knows between two calls, as plain bytes without pointers.

pub mod slab;
pub mod table;
pub mod wheel;
