//! [`alive`]: recoveries without a death. [`deaths`]: real ones, in a [`world`] whose regions and [`card`]s lie in shared
//! memory, by [`trace`].

mod alive;
mod card;
mod deaths;
mod trace;
mod world;
