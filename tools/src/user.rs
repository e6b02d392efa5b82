//! `accel -u NAME`: root opens the interfaces, and the program runs as somebody else.

use std::ffi::CString;

use crate::refusal::{REFUSED, Refusal};
use crate::sys;

/// A user of this host (passwd(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// Its name.
    pub name: CString,
    /// Its number.
    pub number: u32,
    /// Its group's.
    pub group: u32,
}

/// The user of this name.
pub(crate) fn find(name: &str) -> Result<User, Refusal> {
    let unknown = || Refusal::usage(format!("-u: there is no user `{name}` on this host."));
    let name = CString::new(name).map_err(|_| unknown())?;
    let (number, group) = sys::user_named(&name).ok_or_else(unknown)?;
    let own = sys::effective_user();
    if own != 0 && own != number {
        let name = name.to_string_lossy();
        return Err(Refusal::usage(format!("-u {name}: only root may run a program as another user.")));
    }
    Ok(User { name, number, group })
}

impl User {
    /// Does something with the rights of this user, who is told to whoever is connected to meanwhile; or with the caller's.
    pub(crate) fn as_it<R>(user: Option<&Self>, act: impl FnOnce() -> R) -> R {
        let Some(user) = user else { return act() };
        let own = (sys::effective_user(), sys::effective_group());
        sys::set_effective(user.number, user.group);
        let result = act();
        sys::set_effective(own.0, own.1);
        result
    }

    /// The command is this user's from now on, with the user's groups, for good.
    pub(crate) fn become_it(&self) -> Result<(), Refusal> {
        if sys::effective_user() == self.number {
            return Ok(());
        }
        sys::become_user(&self.name, self.number, self.group)
            .map_err(|error| Refusal::with(REFUSED, format!("-u {}: {error}.", self.name.to_string_lossy())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_those_of_the_host() {
        let root = find("root");
        if sys::effective_user() == 0 {
            assert_eq!(root.map(|user| (user.number, user.group)).ok(), Some((0, 0)));
        }
        let refusal = find("nobody at all").expect_err("there is none").to_string();
        assert!(refusal.contains("there is no user `nobody at all`"), "{refusal}");
    }
}
