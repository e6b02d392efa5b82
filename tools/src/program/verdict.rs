//! Can the library get into this program? Looked up before it runs: a hint, never a reason not to run it.

use super::elf::{self, Elf, Fault};
use super::find;
use crate::sys;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Scripts whose interpreter is a script …: Linux follows about as many.
const SCRIPTS_MAX: usize = 5;
/// Linux reads this much of a `#!` line (BINPRM_BUF_SIZE).
const LINE_MAX: usize = 256;

/// What a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Uses the loader and libc that accel needs.
    Dynamic,
    /// Has no loader.
    Static,
    /// Go without a loader.
    StaticGo,
    /// Go that uses libc for some things, but not for its sockets.
    DynamicGo,
    /// Built for musl.
    Musl,
    /// Asks for another loader.
    OtherLoader(String),
    /// 32-bit or another machine.
    OtherMachine(String),
    /// Gets the rights of this user as it starts.
    SetUser(u32),
    /// Gets the rights of this group as it starts.
    SetGroup(u32),
    /// Gets capabilities as it starts.
    Capabilities,
    /// May be executed and not read.
    Unreadable,
    /// Text without a `#!` line: a shell runs it, and this is what the shell is.
    PlainText,
    /// Anything else.
    Unknown(String),
}

/// A command, the scripts on the way, and the binary that runs in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The scripts that were followed, the command first.
    pub scripts: Vec<PathBuf>,
    /// The file that was judged.
    pub binary: PathBuf,
    /// What it is.
    pub kind: Kind,
}

impl Verdict {
    /// What the program is: `/usr/bin/etcd is …`.
    pub(crate) fn description(&self) -> String {
        let subject = self.binary.display();
        let subject = match self.scripts.first() {
            Some(script) if self.kind != Kind::PlainText => {
                format!("{} is a script run by {subject}, which", script.display())
            }
            _ => subject.to_string(),
        };
        let what = match &self.kind {
            Kind::Dynamic => "is a dynamically linked program that uses glibc".to_owned(),
            Kind::Static => "is a statically linked program".to_owned(),
            Kind::StaticGo => "is a statically linked Go program".to_owned(),
            Kind::DynamicGo => "is a Go program".to_owned(),
            Kind::Musl => "uses musl as its C library".to_owned(),
            Kind::OtherLoader(loader) => format!("asks for the loader {loader}"),
            Kind::OtherMachine(machine) => format!("is a program for {machine}"),
            Kind::SetUser(user) => format!("is a setuid program of user {user}"),
            Kind::SetGroup(group) => format!("is a setgid program of group {group}"),
            Kind::Capabilities => "is a program with file capabilities".to_owned(),
            Kind::Unreadable => "may be executed but not read".to_owned(),
            Kind::PlainText => "is a text file without a `#!` line".to_owned(),
            Kind::Unknown(why) => format!("is not a program that accel knows ({why})"),
        };
        format!("{subject} {what}")
    }

    /// Why accel will not accelerate it, in one sentence; `None` if it will.
    pub(crate) fn warning(&self) -> Option<String> {
        let why = match &self.kind {
            Kind::Dynamic => return None,
            Kind::Static => "; no library can be loaded into it",
            Kind::StaticGo => "; it does not use libc",
            Kind::DynamicGo => "; its sockets do not use libc",
            Kind::Musl => ", and accel is built for glibc",
            Kind::OtherLoader(_) => ", which is not glibc's",
            Kind::OtherMachine(_) => {
                return Some(format!(
                    "{}, and accel is built for 64-bit {}, so it runs on the kernel stack (not accelerated).",
                    self.description(),
                    elf::machine_name(elf::OWN_MACHINE)
                ));
            }
            Kind::SetUser(_) | Kind::SetGroup(_) | Kind::Capabilities => {
                "; the loader ignores LD_PRELOAD in programs that gain rights as they start"
            }
            Kind::Unreadable => {
                return Some(format!(
                    "{}, so accel cannot tell whether it will be accelerated; it is started all the same.",
                    self.description()
                ));
            }
            Kind::PlainText => {
                return Some(format!(
                    "{}; it is given to /bin/sh, as shells do, but accel cannot vouch for it.",
                    self.description()
                ));
            }
            Kind::Unknown(_) => "",
        };
        Some(format!("{}{why}, so it runs on the kernel stack (not accelerated).", self.description()))
    }
}

/// Judges a file that [`find::command`] found; `path` is the value of PATH for `#!/usr/bin/env`.
pub(crate) fn judge(file: &Path, path: Option<&OsStr>) -> Verdict {
    let mut scripts = Vec::new();
    let mut binary = file.to_owned();
    let kind = loop {
        match look(&binary, path) {
            Look::Is(kind) => break kind,
            Look::Script(_) if scripts.len() == SCRIPTS_MAX => {
                break Kind::Unknown(format!("more than {SCRIPTS_MAX} scripts call each other"));
            }
            Look::Script(next) => scripts.push(std::mem::replace(&mut binary, next)),
        }
    };
    Verdict { scripts, binary, kind }
}

enum Look {
    Is(Kind),
    Script(PathBuf),
}

fn look(binary: &Path, path: Option<&OsStr>) -> Look {
    let file = match File::open(binary) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Look::Is(gained_rights(binary).unwrap_or(Kind::Unreadable));
        }
        Err(error) => return Look::Is(Kind::Unknown(error.to_string())),
    };
    match elf::inspect(&file) {
        Ok(elf) => Look::Is(gained_rights(binary).unwrap_or_else(|| kind_of(&elf))),
        Err(Fault::Broken(why)) => Look::Is(Kind::Unknown(why.to_owned())),
        Err(Fault::NotElf) => match script_interpreter(&start_of(&file), path) {
            Some(Ok(next)) => Look::Script(next),
            Some(Err(why)) => Look::Is(Kind::Unknown(why)),
            None if is_text(&start_of(&file)) => Look::Is(Kind::PlainText),
            None => Look::Is(Kind::Unknown("neither ELF nor a script".to_owned())),
        },
    }
}

fn start_of(file: &File) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; LINE_MAX];
    let length = file.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(length);
    bytes
}

/// As shells judge: no NUL byte in the first line.
fn is_text(start: &[u8]) -> bool {
    !start.split(|&byte| byte == b'\n').next().unwrap_or_default().contains(&0)
}

fn kind_of(elf: &Elf) -> Kind {
    if !elf.is_64_bit || !elf.is_little_endian || elf.machine != elf::OWN_MACHINE {
        let bits = if elf.is_64_bit { "64-bit" } else { "32-bit" };
        return Kind::OtherMachine(format!("{bits} {}", elf::machine_name(elf.machine)));
    }
    match &elf.interpreter {
        None if elf.is_go => Kind::StaticGo,
        // The loader itself, called as a program: it loads what LD_PRELOAD says.
        None if elf.is_relocatable && elf.has_soname => Kind::Dynamic,
        None => Kind::Static,
        Some(_) if elf.is_go => Kind::DynamicGo,
        Some(loader) => {
            let name = loader.rsplit('/').next().unwrap_or_default();
            if name.starts_with("ld-musl") {
                Kind::Musl
            } else if name.starts_with("ld-linux") || name.starts_with("ld.so") || name.starts_with("ld64.so")
            {
                Kind::Dynamic
            } else {
                Kind::OtherLoader(loader.clone())
            }
        }
    }
}

/// What makes the kernel set AT_SECURE for this caller (security/commoncap.c).
fn gained_rights(binary: &Path) -> Option<Kind> {
    let facts = std::fs::metadata(binary).ok()?;
    let mode = facts.mode();
    let (set_user, set_group) =
        (mode & libc::S_ISUID != 0, mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0);
    if no_new_privileges() || sys::is_mounted_nosuid(binary) {
        return None;
    }
    if set_user && facts.uid() != sys::real_user() {
        Some(Kind::SetUser(facts.uid()))
    } else if set_group && facts.gid() != sys::real_group() {
        Some(Kind::SetGroup(facts.gid()))
    } else if sys::real_user() != 0 && sys::has_capabilities(binary) {
        Some(Kind::Capabilities)
    } else {
        None
    }
}

fn no_new_privileges() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"])))
}

/// The file that runs a script which starts like this, if it is one.
fn script_interpreter(start: &[u8], path: Option<&OsStr>) -> Option<Result<PathBuf, String>> {
    let line = start.strip_prefix(b"#!")?;
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.trim_ascii();
    let (interpreter, argument) = match line.iter().position(|byte| matches!(byte, b' ' | b'\t')) {
        Some(end) => (&line[..end], line[end..].trim_ascii()),
        None => (line, b"".as_slice()),
    };
    if interpreter.is_empty() {
        return Some(Err("its `#!` line names no interpreter".to_owned()));
    }
    let interpreter = Path::new(OsStr::from_bytes(interpreter));
    if interpreter.file_name() == Some(OsStr::new("env"))
        && let Some(program) = env_program(argument)
    {
        return Some(find::command(&program, path).map_err(|refusal| {
            format!("its `#!` line asks for {}: {}", program.display(), refusal.message.trim_end_matches('.'))
        }));
    }
    Some(Ok(interpreter.to_owned()))
}

/// The program that `env ARGUMENT` starts: `python3`, `-S python3 -u`, `-S A=b python3`.
fn env_program(argument: &[u8]) -> Option<OsString> {
    let split = argument.strip_prefix(b"-S").or_else(|| argument.strip_prefix(b"--split-string="));
    let mut words = match split {
        Some(rest) => rest,
        None => argument,
    }
    .split(|byte| matches!(byte, b' ' | b'\t'))
    .filter(|word| !word.is_empty());
    words
        .find(|word| !word.starts_with(b"-") && !word.contains(&b'='))
        .map(|word| OsStr::from_bytes(word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::elf::tests::synthetic;

    fn kind(interpreter: Option<&str>, sections: &[&str]) -> Kind {
        let name = interpreter.map(|name| [name.as_bytes(), b"\0"].concat());
        let segments: Vec<(u32, &[u8])> = match &name {
            Some(name) => vec![(3, name.as_slice())],
            None => vec![(1, b"".as_slice())],
        };
        kind_of(&elf::inspect(synthetic(3, elf::OWN_MACHINE, &segments, sections).as_slice()).unwrap())
    }

    #[test]
    fn kinds_follow_from_loader_and_build_notes() {
        assert_eq!(kind(Some("/lib64/ld-linux-x86-64.so.2"), &[]), Kind::Dynamic);
        assert_eq!(kind(Some("/nix/store/abc/lib/ld-linux-x86-64.so.2"), &[]), Kind::Dynamic);
        assert_eq!(kind(Some("/lib/ld-musl-x86_64.so.1"), &[]), Kind::Musl);
        assert_eq!(kind(Some("/system/bin/linker64"), &[]), Kind::OtherLoader("/system/bin/linker64".into()));
        assert_eq!(kind(Some("/lib64/ld-linux-x86-64.so.2"), &[".go.buildinfo"]), Kind::DynamicGo);
        assert_eq!(kind(None, &[".go.buildinfo"]), Kind::StaticGo);
        assert_eq!(kind(None, &[]), Kind::Static);
    }

    #[test]
    fn the_interpreter_of_a_script_is_found() {
        let next = |line: &str| script_interpreter(line.as_bytes(), Some(OsStr::new("/bin")));
        assert_eq!(next("#!/bin/sh\n"), Some(Ok("/bin/sh".into())));
        assert_eq!(next("#! /bin/sh -e\necho"), Some(Ok("/bin/sh".into())));
        assert_eq!(next("#!/usr/bin/env sh\n"), Some(Ok("/bin/sh".into())));
        assert_eq!(next("#!/usr/bin/env -S A=b sh -e\n"), Some(Ok("/bin/sh".into())));
        assert!(matches!(next("#!/usr/bin/env no-such-program\n"), Some(Err(_))));
        assert!(matches!(next("#!\n"), Some(Err(_))));
        assert_eq!(next("echo hello\n"), None);
    }

    #[test]
    fn sentences_name_the_program_and_the_consequence() {
        let verdict = Verdict { scripts: vec![], binary: "/usr/local/bin/etcd".into(), kind: Kind::StaticGo };
        assert_eq!(
            verdict.warning().unwrap(),
            "/usr/local/bin/etcd is a statically linked Go program; it does not use libc, \
             so it runs on the kernel stack (not accelerated)."
        );
        let verdict = Verdict {
            scripts: vec!["/tmp/run".into()],
            binary: "/bin/busybox".into(),
            kind: Kind::OtherMachine("32-bit i386".into()),
        };
        assert_eq!(
            verdict.warning().unwrap(),
            format!(
                "/tmp/run is a script run by /bin/busybox, which is a program for 32-bit i386, and accel \
                 is built for 64-bit {}, so it runs on the kernel stack (not accelerated).",
                elf::machine_name(elf::OWN_MACHINE)
            )
        );
    }

    #[test]
    fn scripts_that_call_themselves_end() {
        let file = std::env::temp_dir().join(format!("accel-loop-{}", std::process::id()));
        std::fs::write(&file, format!("#!{}\n", file.display())).unwrap();
        let verdict = judge(&file, None);
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(verdict.kind, Kind::Unknown(_)));
        assert_eq!(verdict.scripts.len(), SCRIPTS_MAX);
    }

    #[test]
    fn this_test_is_a_dynamic_program() {
        let verdict = judge(&std::env::current_exe().unwrap(), None);
        assert_eq!(verdict.kind, Kind::Dynamic);
        assert_eq!(verdict.warning(), None);
    }
}
