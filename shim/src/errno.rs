//! `errno` of the calling thread, and what a failing call returns.

use libc::c_int;

/// The value that a C function of this return type gives when it fails.
pub(crate) trait Failure {
    /// -1, a null pointer or `SIG_ERR`.
    fn failure() -> Self;
}

impl Failure for c_int {
    fn failure() -> Self {
        -1
    }
}

impl Failure for isize {
    fn failure() -> Self {
        -1
    }
}

impl Failure for i64 {
    fn failure() -> Self {
        -1
    }
}

/// `sighandler_t`: `SIG_ERR`.
impl Failure for usize {
    fn failure() -> Self {
        libc::SIG_ERR
    }
}

impl Failure for () {
    fn failure() -> Self {}
}

impl<T> Failure for *mut T {
    fn failure() -> Self {
        core::ptr::null_mut()
    }
}

/// The calling thread's `errno`.
#[inline]
#[must_use]
pub(crate) fn get() -> c_int {
    // SAFETY: the location of errno is valid for as long as the thread lives.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's `errno`.
#[inline]
pub(crate) fn set(error: c_int) {
    // SAFETY: as in `get`.
    unsafe { *libc::__errno_location() = error }
}

/// Sets `errno` and gives the value that the failing function returns.
#[inline]
pub(crate) fn fail<T: Failure>(error: c_int) -> T {
    set(error);
    T::failure()
}

/// Runs `f` and puts `errno` back as it was: for work that the program must not see.
#[inline]
pub(crate) fn kept<R>(f: impl FnOnce() -> R) -> R {
    let before = get();
    let result = f();
    set(before);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_sets_errno_and_has_the_type_s_own_value() {
        assert_eq!(fail::<c_int>(libc::EBADF), -1);
        assert_eq!(get(), libc::EBADF);
        assert!(fail::<*mut u8>(libc::ENOMEM).is_null());
        kept(|| set(libc::EAGAIN));
        assert_eq!(get(), libc::ENOMEM);
    }
}
