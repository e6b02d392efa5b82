//! accel's variables in the programs that this one starts.
//!
//! A program that starts another with an environment made by hand (and not from its own `environ`) does not
//! mean accel; its child gets `LD_PRELOAD` and the `ACCEL_*` variables of this process's start. A program
//! that took `LD_PRELOAD` out of its `environ`, or passes one without accel in it, does mean it.
//!
//! exec runs in children of `vfork` and of threaded programs: no allocation, no lock, only `mmap` for lists
//! that no stack should hold.

use crate::config::config;
use core::ffi::CStr;
use core::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Release};
use driver::sys;
use libc::{c_char, c_int};
use std::ffi::CString;

/// What the process was started with.
struct Start {
    /// The file name of this library, as the loader found it.
    own_name: CString,
    /// `LD_PRELOAD=...`, then the `ACCEL_*` strings.
    strings: Vec<CString>,
}

static START: AtomicPtr<Start> = AtomicPtr::new(core::ptr::null_mut());

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// The program's `environ`.
#[must_use]
pub(crate) fn current() -> *const *const c_char {
    // SAFETY: libc's variable; the program may change it at any time, as for every reader of it.
    unsafe { (&raw const environ).read_volatile() }
}

/// The strings of an environment array.
///
/// # Safety
/// `list` is null or an array of C strings that ends with null, and lives for `'a`.
pub(crate) unsafe fn strings<'a>(list: *const *const c_char) -> impl Iterator<Item = &'a CStr> {
    let mut at = list;
    core::iter::from_fn(move || {
        // SAFETY: `at` has not passed the null that ends the array.
        let string = if at.is_null() { core::ptr::null() } else { unsafe { *at } };
        if string.is_null() {
            return None;
        }
        // SAFETY: the entry was not the last.
        at = unsafe { at.add(1) };
        // SAFETY: entries are C strings.
        Some(unsafe { CStr::from_ptr(string) })
    })
}

fn name_of(string: &CStr) -> &[u8] {
    let bytes = string.to_bytes();
    bytes.split(|byte| *byte == b'=').next().unwrap_or(bytes)
}

fn is_ours(name: &[u8]) -> bool {
    name == b"ACCEL" || name.starts_with(b"ACCEL_")
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// Whether an `LD_PRELOAD=` string names this library.
fn preloads(string: &CStr, own_name: &[u8]) -> bool {
    let bytes = string.to_bytes();
    let list = bytes.strip_prefix(b"LD_PRELOAD=").unwrap_or_default();
    list.split(|byte| *byte == b':' || *byte == b' ').any(|entry| file_name(entry) == own_name)
}

fn own_name() -> CString {
    let mut found = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the address is in this library; dladdr fills the structure or leaves its zeros, and the name that
    // it gives lives as long as the library.
    let path = unsafe {
        libc::dladdr(own_name as *const _, found.as_mut_ptr());
        let path = found.assume_init().dli_fname;
        if path.is_null() { c"libaccel.so" } else { CStr::from_ptr(path) }
    };
    CString::new(file_name(path.to_bytes())).unwrap_or_default()
}

/// At start-up: copies the variables, because programs write over the originals to set their title.
pub(crate) fn remember() {
    let own_name = own_name();
    let mut kept = Vec::new();
    // SAFETY: the environment that the process was started with.
    for string in unsafe { strings(current()) } {
        match name_of(string) {
            b"LD_PRELOAD" if preloads(string, own_name.to_bytes()) => kept.insert(0, string.to_owned()),
            name if is_ours(name) => kept.push(string.to_owned()),
            _ => {}
        }
    }
    let start = Box::into_raw(Box::new(Start { own_name, strings: kept }));
    START.store(start, Release);
}

/// Calls `exec` with the environment that the new program shall have: `given`, and accel's variables if the
/// rule above says so.
///
/// # Safety
/// `given` is null or an array of C strings that ends with null.
pub(crate) unsafe fn with_accel<R>(
    given: *const *const c_char,
    exec: impl FnOnce(*const *const c_char) -> R,
) -> R {
    // SAFETY: set once, never freed.
    let Some(start) = (unsafe { START.load(Acquire).as_ref() }) else { return exec(given) };
    // SAFETY: the caller's array and the program's environment.
    if !config().keep_env || !unsafe { was_cleaned(start, given, current()) } {
        return exec(given);
    }
    // SAFETY: the caller's array.
    let count = unsafe { strings(given) }.count();
    with_list(count + start.strings.len() + 1, |list| {
        let Some(list) = list else { return exec(given) };
        // SAFETY: the caller's array.
        let kept = unsafe { strings(given) };
        // A variable that the program passes itself keeps the program's value.
        // SAFETY: the caller's array.
        let is_given = |name: &[u8]| unsafe { strings(given) }.any(|string| name_of(string) == name);
        let added = start.strings.iter().map(CString::as_c_str).filter(|string| !is_given(name_of(string)));
        let mut filled = 0;
        for string in kept.chain(added) {
            list[filled] = string.as_ptr();
            filled += 1;
        }
        list[filled] = core::ptr::null();
        exec(list.as_ptr())
    })
}

/// Whether `given` lacks `LD_PRELOAD` although the program's own `environ` still has it, with accel in it.
///
/// # Safety
/// Both are null or arrays of C strings that end with null.
unsafe fn was_cleaned(start: &Start, given: *const *const c_char, own: *const *const c_char) -> bool {
    if given == own || start.strings.first().is_none_or(|first| name_of(first) != b"LD_PRELOAD") {
        return false;
    }
    // SAFETY: the caller's arrays.
    let (mut given, mut own) = unsafe { (strings(given), strings(own)) };
    !given.any(|string| name_of(string) == b"LD_PRELOAD")
        && own.any(|string| preloads(string, start.own_name.to_bytes()))
}

/// Entries that a list on the stack holds (2 KiB: threads may have small stacks).
const SMALL: usize = 256;

/// Calls `f` with room for `count` pointers, all null, without allocating; with `None` if there is no memory.
/// If the list needs a mapping and `f` execs in a child of `vfork`, the mapping stays with the parent.
pub(crate) fn with_list<R>(count: usize, f: impl FnOnce(Option<&mut [*const c_char]>) -> R) -> R {
    if count <= SMALL {
        return f(Some(&mut [core::ptr::null(); SMALL][..count]));
    }
    let length = count * size_of::<*const c_char>();
    const PROTECTION: c_int = libc::PROT_READ | libc::PROT_WRITE;
    match sys::mmap(None, length, PROTECTION, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) {
        Ok(at) => {
            // SAFETY: a fresh mapping of zeros, large enough, page-aligned, used by nobody else.
            let list = unsafe { core::slice::from_raw_parts_mut(at.cast::<*const c_char>(), count) };
            let result = f(Some(list));
            // SAFETY: the mapping made above; the list is not used any more.
            unsafe { sys::munmap(at, length) };
            result
        }
        Err(_) => f(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        let strings = [c"LD_PRELOAD=/usr/lib/libaccel.so", c"ACCEL_SPIN=never"];
        Start { own_name: c"libaccel.so".into(), strings: strings.map(CStr::to_owned).to_vec() }
    }

    fn cleaned(given: &[&CStr], own: &[&CStr]) -> bool {
        let list = |strings: &[&CStr]| {
            let mut list: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
            list.push(core::ptr::null());
            list
        };
        let (given, own) = (list(given), list(own));
        // SAFETY: both lists end with null and live until here.
        unsafe { was_cleaned(&start(), given.as_ptr(), own.as_ptr()) }
    }

    #[test]
    fn only_a_hand_made_environment_of_a_preloaded_program_is_completed() {
        const PRELOAD: &CStr = c"LD_PRELOAD=libother.so:/usr/lib/libaccel.so";
        assert!(cleaned(&[c"PATH=/bin"], &[c"PATH=/bin", PRELOAD]), "made by hand");
        assert!(cleaned(&[], &[PRELOAD]), "empty");
        assert!(!cleaned(&[c"PATH=/bin"], &[c"PATH=/bin"]), "unsetenv");
        assert!(!cleaned(&[c"LD_PRELOAD="], &[PRELOAD]), "emptied");
        assert!(!cleaned(&[c"LD_PRELOAD=libother.so"], &[PRELOAD]), "replaced");
        assert!(!cleaned(&[], &[c"LD_PRELOAD=libaccel.so.bak"]), "another library");
    }

    #[test]
    fn lists_of_any_length_hold_what_they_were_made_for() {
        for count in [1, SMALL, SMALL + 1, 10_000] {
            let fits =
                |list: &mut [*const c_char]| list.len() == count && list.iter().all(|entry| entry.is_null());
            assert!(with_list(count, |list| list.is_some_and(fits)));
        }
    }
}
