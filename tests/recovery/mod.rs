//! [`alive`]: recoveries without a death. [`deaths`]: real ones, in a [`world`] whose regions and [`card`]s lie in shared
//! memory, by [`trace`]. [`twins`]: a region that is copied to another address. [`nonsense`]: one that nobody has written.

mod alive;
mod card;
mod datagrams;
mod deaths;
mod nonsense;
mod trace;
mod twins;
mod world;
