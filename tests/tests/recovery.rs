//! Recovery over whole stacks: one without a death changes nothing, whatever goes on; and one after a real death loses what the
//! intent names, and nothing else.

#[path = "../recovery/mod.rs"]
mod recovery;
