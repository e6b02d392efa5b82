//! A copy that may meet an address of the program's that is not mapped.
//!
//! The kernel answers EFAULT there, by a table of the instructions that may fault; so does this. The copy is libc's
//! `memcpy`, called from a piece of assembly that notes its return address in a table. Such a call returns its
//! target, never null. On a fault the handler of SIGSEGV, which is the shim's, asks [`recovery`] whether the address
//! on top of the stack is in the table: `memcpy` is a leaf that saves nothing, so going on at a `return` of null is
//! the same as if it had returned that. Where a `memcpy` does save something, the top of its stack is no such
//! address, and the fault stays what it is. So the price of a copy that does not fault is one test.

/// Copies `count` bytes; false if part of either range is not mapped, and then some of them may have been copied.
///
/// # Safety
/// What of the two ranges is mapped must be readable, or writable, as plain bytes, and they must not overlap. A
/// range that is not mapped kills the program unless somebody uses [`recovery`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[must_use]
pub unsafe fn copy(source: *const u8, target: *mut u8, count: usize) -> bool {
    let returned: usize;
    // SAFETY: memcpy's contract is the caller's; it may use every register that a call may.
    unsafe {
        core::arch::asm!(
            "call qword ptr [rip + memcpy@GOTPCREL]",
            "2:",
            ".pushsection accel_faults, \"aR\", @progbits",
            ".long 2b - .",
            ".popsection",
            inout("rdi") target => _,
            inout("rsi") source => _,
            inout("rdx") count => _,
            lateout("rax") returned,
            clobber_abi("C"),
        );
    }
    returned != 0
}

/// Copies `count` bytes; a fault is not recovered from here.
///
/// # Safety
/// Both ranges must be valid, and must not overlap.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
#[must_use]
pub unsafe fn copy(source: *const u8, target: *mut u8, count: usize) -> bool {
    // SAFETY: the caller's contract.
    unsafe { core::ptr::copy_nonoverlapping(source, target, count) };
    true
}

/// Where to go on after a fault below this return address.
#[cfg(target_arch = "x86_64")]
#[must_use]
pub fn recovery(return_address: usize) -> Option<usize> {
    // SAFETY: the linker's bounds of a section of such offsets; nobody writes it.
    let table = unsafe {
        let (start, end) = (&raw const table::__start_accel_faults, &raw const table::__stop_accel_faults);
        core::slice::from_raw_parts(start, end.offset_from_unsigned(start))
    };
    let far = |from: &i32| core::ptr::from_ref(from).addr().wrapping_add_signed(*from as isize);
    let is_copy = table.iter().any(|call| far(call) == return_address);
    is_copy.then_some(table::accel_return_null as *const () as usize)
}

/// Nowhere: copies are plain ones.
#[cfg(not(target_arch = "x86_64"))]
#[must_use]
pub fn recovery(_return_address: usize) -> Option<usize> {
    None
}

#[cfg(target_arch = "x86_64")]
mod table {
    unsafe extern "C" {
        pub(super) static __start_accel_faults: i32;
        pub(super) static __stop_accel_faults: i32;
        pub(super) fn accel_return_null();
    }
    // One entry that is nobody's, so that the section exists in programs without a copy.
    core::arch::global_asm!(
        ".hidden __start_accel_faults",
        ".hidden __stop_accel_faults",
        ".pushsection accel_faults, \"aR\", @progbits",
        ".long 0",
        ".popsection",
        ".pushsection .text.accel_return_null, \"ax\", @progbits",
        ".hidden accel_return_null",
        ".globl accel_return_null",
        ".type accel_return_null, @function",
        "accel_return_null:",
        "xor eax, eax",
        "ret",
        ".size accel_return_null, . - accel_return_null",
        ".popsection"
    );
}
