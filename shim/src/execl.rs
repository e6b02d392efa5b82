//! The variadic functions that no fixed argument list can stand for: `execl*` and `dprintf`.
//!
//! Stable Rust cannot define C-variadic functions. These spill the argument registers in assembly and hand
//! pointers to Rust: `execl*` collects its arguments into an array and is `execv*` from there on; `dprintf`
//! asks what to do about its descriptor and jumps to libc with every register as it was.

use crate::environment::{current, with_list};
use crate::real::types::*;
use crate::{errno, process, real, stdio};
use core::arch::naked_asm;
use core::sync::atomic::AtomicPtr;

/// Argument registers after the first: rsi rdx rcx r8 r9, or x1 to x7.
const REGISTERS: usize = if cfg!(target_arch = "x86_64") { 5 } else { 7 };

/// The arguments of a variadic call after its first: some in registers, the rest on the stack.
struct Arguments {
    registers: *const *const c_char,
    stack: *const *const c_char,
}

impl Arguments {
    /// # Safety
    /// The caller of the variadic function passed more than `index` such arguments.
    unsafe fn at(&self, index: usize) -> *const c_char {
        // SAFETY: see above; the spill area holds REGISTERS words.
        unsafe {
            match index.checked_sub(REGISTERS) {
                None => *self.registers.add(index),
                Some(index) => *self.stack.add(index),
            }
        }
    }

    /// Calls `exec` with the arguments up to the null as an array, and what follows it (`execle`).
    ///
    /// # Safety
    /// The list ends with null.
    unsafe fn collected(
        &self,
        exec: impl FnOnce(*const *const c_char, &dyn Fn() -> *const *const c_char) -> c_int,
    ) -> c_int {
        let mut count = 0;
        // SAFETY: not past the null.
        while !unsafe { self.at(count) }.is_null() {
            count += 1;
        }
        with_list(count + 1, |list| {
            let Some(list) = list else { return errno::fail(libc::ENOMEM) };
            for (index, entry) in list.iter_mut().enumerate() {
                // SAFETY: up to the null.
                *entry = unsafe { self.at(index) };
            }
            // SAFETY: only `execle` asks, and it has one more argument.
            exec(list.as_ptr(), &|| unsafe { self.at(count + 1) }.cast())
        })
    }
}

unsafe extern "C-unwind" fn collect_execl(
    path: *const c_char,
    registers: *const *const c_char,
    stack: *const *const c_char,
) -> c_int {
    // SAFETY: the contract of execl: the list ends with null.
    unsafe { Arguments { registers, stack }.collected(|argv, _| process::execve(path, argv, current())) }
}

unsafe extern "C-unwind" fn collect_execlp(
    file: *const c_char,
    registers: *const *const c_char,
    stack: *const *const c_char,
) -> c_int {
    // SAFETY: the contract of execlp: the list ends with null.
    unsafe { Arguments { registers, stack }.collected(|argv, _| process::execvpe(file, argv, current())) }
}

unsafe extern "C-unwind" fn collect_execle(
    path: *const c_char,
    registers: *const *const c_char,
    stack: *const *const c_char,
) -> c_int {
    // SAFETY: the contract of execle: the list ends with null, and the environment follows.
    unsafe { Arguments { registers, stack }.collected(|argv, envp| process::execve(path, argv, envp())) }
}

/// Where `dprintf` goes on, after its descriptor was looked at.
extern "C-unwind" fn before_dprintf(fd: c_int) -> *mut c_void {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
    stdio::written_by_libc(fd);
    real::variadic(&NEXT, c"dprintf")
}

extern "C-unwind" fn before_dprintf_chk(fd: c_int) -> *mut c_void {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
    stdio::written_by_libc(fd);
    real::variadic(&NEXT, c"__dprintf_chk")
}

macro_rules! collecting {
    ($name:ident, $collect:path, $doc:literal) => {
        #[doc = $doc]
        /// # Safety
        /// That of the C function.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C-unwind" fn $name(first: *const c_char) -> c_int {
            #[cfg(target_arch = "x86_64")]
            naked_asm!(
                ".cfi_startproc",
                "push rbp",
                ".cfi_adjust_cfa_offset 8",
                ".cfi_rel_offset rbp, 0",
                "mov rbp, rsp",
                ".cfi_def_cfa_register rbp",
                "sub rsp, 48",
                "mov [rsp], rsi",
                "mov [rsp + 8], rdx",
                "mov [rsp + 16], rcx",
                "mov [rsp + 24], r8",
                "mov [rsp + 32], r9",
                "mov rsi, rsp",
                "lea rdx, [rbp + 16]",
                "call {collect}",
                "leave",
                ".cfi_def_cfa rsp, 8",
                "ret",
                ".cfi_endproc",
                collect = sym $collect,
            );
            #[cfg(target_arch = "aarch64")]
            naked_asm!(
                ".cfi_startproc",
                "stp x29, x30, [sp, -80]!",
                ".cfi_def_cfa_offset 80",
                ".cfi_offset x29, -80",
                ".cfi_offset x30, -72",
                "stp x1, x2, [sp, 16]",
                "stp x3, x4, [sp, 32]",
                "stp x5, x6, [sp, 48]",
                "str x7, [sp, 64]",
                "add x1, sp, 16",
                "add x2, sp, 80",
                "bl {collect}",
                "ldp x29, x30, [sp], 80",
                "ret",
                ".cfi_endproc",
                collect = sym $collect,
            );
        }
    };
}

collecting!(execl, collect_execl, "as execve");
collecting!(execlp, collect_execlp, "as execve");
collecting!(execle, collect_execle, "as execve");

macro_rules! passing_on {
    ($name:ident, $before:path, $doc:literal) => {
        #[doc = $doc]
        /// # Safety
        /// That of the C function.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C-unwind" fn $name(fd: c_int) -> c_int {
            #[cfg(target_arch = "x86_64")]
            naked_asm!(
                ".cfi_startproc",
                "push rbp",
                ".cfi_adjust_cfa_offset 8",
                ".cfi_rel_offset rbp, 0",
                "mov rbp, rsp",
                ".cfi_def_cfa_register rbp",
                "sub rsp, 192",
                "mov [rsp], rdi",
                "mov [rsp + 8], rsi",
                "mov [rsp + 16], rdx",
                "mov [rsp + 24], rcx",
                "mov [rsp + 32], r8",
                "mov [rsp + 40], r9",
                "mov [rsp + 48], rax",
                "movaps [rsp + 64], xmm0",
                "movaps [rsp + 80], xmm1",
                "movaps [rsp + 96], xmm2",
                "movaps [rsp + 112], xmm3",
                "movaps [rsp + 128], xmm4",
                "movaps [rsp + 144], xmm5",
                "movaps [rsp + 160], xmm6",
                "movaps [rsp + 176], xmm7",
                "call {before}",
                "mov r11, rax",
                "mov rdi, [rsp]",
                "mov rsi, [rsp + 8]",
                "mov rdx, [rsp + 16]",
                "mov rcx, [rsp + 24]",
                "mov r8, [rsp + 32]",
                "mov r9, [rsp + 40]",
                "mov rax, [rsp + 48]",
                "movaps xmm0, [rsp + 64]",
                "movaps xmm1, [rsp + 80]",
                "movaps xmm2, [rsp + 96]",
                "movaps xmm3, [rsp + 112]",
                "movaps xmm4, [rsp + 128]",
                "movaps xmm5, [rsp + 144]",
                "movaps xmm6, [rsp + 160]",
                "movaps xmm7, [rsp + 176]",
                "leave",
                ".cfi_def_cfa rsp, 8",
                "jmp r11",
                ".cfi_endproc",
                before = sym $before,
            );
            #[cfg(target_arch = "aarch64")]
            naked_asm!(
                ".cfi_startproc",
                "stp x29, x30, [sp, -208]!",
                ".cfi_def_cfa_offset 208",
                ".cfi_offset x29, -208",
                ".cfi_offset x30, -200",
                "stp x0, x1, [sp, 16]",
                "stp x2, x3, [sp, 32]",
                "stp x4, x5, [sp, 48]",
                "stp x6, x7, [sp, 64]",
                "stp q0, q1, [sp, 80]",
                "stp q2, q3, [sp, 112]",
                "stp q4, q5, [sp, 144]",
                "stp q6, q7, [sp, 176]",
                "bl {before}",
                "mov x16, x0",
                "ldp x0, x1, [sp, 16]",
                "ldp x2, x3, [sp, 32]",
                "ldp x4, x5, [sp, 48]",
                "ldp x6, x7, [sp, 64]",
                "ldp q0, q1, [sp, 80]",
                "ldp q2, q3, [sp, 112]",
                "ldp q4, q5, [sp, 144]",
                "ldp q6, q7, [sp, 176]",
                "ldp x29, x30, [sp], 208",
                "br x16",
                ".cfi_endproc",
                before = sym $before,
            );
        }
    };
}

passing_on!(dprintf, before_dprintf, "gives the socket to stdio: kernel from then on");
passing_on!(__dprintf_chk, before_dprintf_chk, "gives the socket to stdio: kernel from then on");
