//! A signal handler that leaves a blocking call by `longjmp`: what the call had counted is taken back.
//!
//! While a thread blocks in the kernel its handlers run at once, and one of them may jump over the frames of
//! accel that wait for the call. What such a frame must give back (a pin, a sleeper's count) it names to
//! [`holding`]; `longjmp` and its kin are interposed, and undo what lies below their target before they jump.
//!
//! Where they jump to is in the `jmp_buf`, disguised by a number that libc keeps to itself. It is found as the
//! thread sanitizer does it: by a `_setjmp` whose stack pointer is known. Where a second one contradicts the
//! first, or a target cannot be told from another stack, nothing is undone: then the count stays, as in a
//! program that leaves by other means (`setcontext`), and only the connection's memory is lost.

use core::arch::naked_asm;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, compiler_fence,
};

use libc::{c_int, c_void};

use crate::guard::{self, Guard, Thread};
use crate::{errno, real};

/// A frame that waits, and what to undo if it is jumped over.
pub(crate) struct Frame {
    outer: *mut Self,
    undo: *mut (dyn FnMut() + 'static),
}

/// The frame is the innermost one of its thread until this is dropped, also when the thread unwinds.
struct Linked {
    thread: &'static Thread,
    outer: *mut Frame,
}

impl Drop for Linked {
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        self.thread.frames.store(self.outer, Relaxed);
    }
}

/// Runs `body`, which lets handlers run. If one of them jumps away, `undo` runs instead of the rest of the caller.
pub(crate) fn holding<R>(undo: &mut dyn FnMut(), body: impl FnOnce() -> R) -> R {
    let thread = guard::thread();
    let outer = thread.frames.load(Relaxed);
    // SAFETY: only the lifetime changes: the frame is unlinked before `undo` ends, on every way out.
    let undo = unsafe { core::mem::transmute::<&mut dyn FnMut(), &mut (dyn FnMut() + 'static)>(undo) };
    let mut frame = Frame { outer, undo };
    thread.frames.store(&raw mut frame, Relaxed);
    compiler_fence(SeqCst);
    let _linked = Linked { thread, outer };
    body()
}

/// The stack pointer's place in a `jmp_buf` (glibc, sysdeps/*/jmpbuf-offsets.h).
const STACK_POINTER: usize = if cfg!(target_arch = "x86_64") { 6 } else { 13 };
/// A target farther above a frame than this may lie on another stack.
const SAME_STACK: usize = 1 << 20;

static KNOWN: AtomicBool = AtomicBool::new(false);
static DISGUISE: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    fn _setjmp(buffer: *mut u64) -> c_int;
}

/// `_setjmp` into a buffer that nobody will jump to; gives the stack pointer that it noted. `lower` (0 or 16)
/// moves it.
#[unsafe(naked)]
unsafe extern "C" fn note_here(buffer: *mut u64, lower: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "push rbp", "mov rbp, rsp", "sub rsp, rsi", "call [rip + {setjmp}@GOTPCREL]", "mov rax, rsp",
        "mov rsp, rbp", "pop rbp", "ret", setjmp = sym _setjmp,
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "stp x29, x30, [sp, #-16]!", "mov x29, sp", "sub sp, sp, x1", "bl {setjmp}", "mov x0, sp",
        "mov sp, x29", "ldp x29, x30, [sp], #16", "ret", setjmp = sym _setjmp,
    );
}

const fn disguised(address: u64, disguise: u64) -> u64 {
    let mixed = address ^ disguise;
    if cfg!(target_arch = "x86_64") { mixed.rotate_left(17) } else { mixed }
}

/// The address behind a disguised one, or, with an address, the disguise.
const fn revealed(word: u64, other: u64) -> u64 {
    let mixed = if cfg!(target_arch = "x86_64") { word.rotate_right(17) } else { word };
    mixed ^ other
}

/// Finds out how libc disguises the stack pointer.
pub(crate) fn start() {
    let noted = |lower: usize| {
        let mut buffer = MaybeUninit::<[u64; 64]>::zeroed();
        // SAFETY: a `jmp_buf` is smaller than that (200 and 312 bytes), and nobody jumps to it.
        let (at, buffer) = unsafe { (note_here(buffer.as_mut_ptr().cast(), lower), buffer.assume_init()) };
        (at as u64, buffer[STACK_POINTER])
    };
    let ((first, word), (second, other)) = (noted(0), noted(16));
    let disguise = revealed(word, first);
    if disguised(second, disguise) == other {
        DISGUISE.store(disguise, Relaxed);
        KNOWN.store(true, SeqCst);
    }
}

/// The alternate stack, while the thread runs on it.
fn alternate_stack() -> Option<core::ops::Range<usize>> {
    let mut stack = MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: only asks; the structure is live, and filled when the call succeeds.
    let stack = unsafe {
        if libc::sigaltstack(ptr::null(), stack.as_mut_ptr()) != 0 {
            return None;
        }
        stack.assume_init()
    };
    let start = stack.ss_sp.addr();
    (stack.ss_flags & libc::SS_ONSTACK != 0).then(|| start..start + stack.ss_size)
}

/// Whether a jump to `target` (a stack pointer) leaves a frame at `frame`. Stacks grow down.
fn leaves(frame: usize, target: usize, alternate: Option<&core::ops::Range<usize>>) -> bool {
    let inside = |address: &usize| alternate.is_some_and(|stack| stack.contains(address));
    inside(&frame) == inside(&target) && target > frame && target - frame < SAME_STACK
}

/// The thread is about to jump to the place that `buffer` (a `jmp_buf`) notes.
#[cold]
#[inline(never)]
unsafe fn leaving(thread: &Thread, buffer: *const c_void) {
    if !KNOWN.load(Relaxed) {
        return;
    }
    // SAFETY: the caller's `jmp_buf`.
    let word = unsafe { buffer.cast::<u64>().add(STACK_POINTER).read_unaligned() };
    let target = revealed(word, DISGUISE.load(Relaxed)) as usize;
    let alternate = alternate_stack();
    let frames = || {
        core::iter::successors(Some(thread.frames.load(Relaxed)), |frame| {
            // SAFETY: frames are linked only while they live, and this thread has not jumped yet.
            (!frame.is_null()).then(|| unsafe { (**frame).outer })
        })
    };
    // The outermost frame that is left takes those that are nested in it with it.
    let left = frames().filter(|frame| !frame.is_null() && leaves(frame.addr(), target, alternate.as_ref()));
    let Some(last) = left.last() else { return };
    let _guard = Guard::enter();
    loop {
        let frame = thread.frames.load(Relaxed);
        // SAFETY: as above; it is unlinked first, so nobody undoes it twice.
        unsafe {
            thread.frames.store((*frame).outer, Relaxed);
            compiler_fence(SeqCst);
            (*(*frame).undo)();
        }
        if frame == last {
            return;
        }
    }
}

/// # Safety
/// That of `longjmp`.
unsafe fn before(buffer: *const c_void) {
    let thread = guard::thread();
    if !thread.frames.load(Relaxed).is_null() {
        // SAFETY: the caller's contract.
        errno::kept(|| unsafe { leaving(thread, buffer) });
    }
}

/// No frame of the child's is one that the parent waits in: what they count is the parent's.
pub(crate) fn after_fork_in_child() {
    guard::thread().frames.store(ptr::null_mut(), Relaxed);
}

macro_rules! jumps {
    ($($name:ident),*) => { $(
        #[doc = concat!("`", stringify!($name), "`.")]
        ///
        /// # Safety
        /// That of `longjmp`.
        pub(crate) unsafe fn $name(buffer: *mut c_void, value: c_int) -> ! {
            // SAFETY: the caller's contract, handed on.
            unsafe {
                before(buffer);
                real::$name(buffer, value)
            }
        }
    )* };
}

jumps!(longjmp, _longjmp, siglongjmp, __longjmp_chk);

/// What a thread's list of frames starts with.
pub(crate) type Frames = AtomicPtr<Frame>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_of_a_jump_is_known() {
        start();
        assert!(KNOWN.load(SeqCst));
    }

    #[test]
    fn only_frames_below_the_target_on_the_same_stack_are_left() {
        let stack = 0x10_0000..0x11_0000;
        assert!(leaves(0x1000, 0x2000, None));
        assert!(!leaves(0x2000, 0x1000, None), "the target is inside the handler");
        assert!(!leaves(0x1000, 0x1000 + SAME_STACK, None));
        assert!(!leaves(0xf_f000, 0x10_8000, Some(&stack)), "the target is on the alternate stack");
        assert!(leaves(0xf_e000, 0xf_f000, Some(&stack)));
        assert!(leaves(0x10_1000, 0x10_8000, Some(&stack)));
    }

    #[test]
    fn what_a_frame_holds_is_undone_once_from_the_inside_out() {
        let mut order = Vec::new();
        let order_at = &raw mut order;
        let note = |number: i32| {
            // SAFETY: `order` lives, and only this thread uses it.
            move || unsafe { (*order_at).push(number) }
        };
        start();
        let (mut outer, mut inner) = (note(1), note(2));
        holding(&mut outer, || {
            holding(&mut inner, || {
                let mut buffer = [0u64; 64];
                let target = (&raw const buffer).addr() + 0x8000;
                buffer[STACK_POINTER] = disguised(target as u64, DISGUISE.load(Relaxed));
                for _ in 0..2 {
                    // SAFETY: the buffer is long enough; nothing jumps.
                    unsafe { before(buffer.as_ptr().cast()) };
                }
            });
        });
        assert_eq!(order, [2, 1]);
        assert!(guard::thread().frames.load(Relaxed).is_null());
    }
}
