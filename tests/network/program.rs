//! Unmodified programs in a host of a test, on the kernel or under accel.

#![allow(dead_code)]

use std::io::{self, BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use harness::wire::namespace::Namespace;
use harness::wire::veth::NAME;

/// The command under test.
pub(super) fn accel() -> PathBuf {
    let path = std::env::var_os("ACCEL_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/accel"), PathBuf::from);
    path.canonicalize().expect("build it first: cargo build --release --workspace, or set ACCEL_BIN")
}

/// Which path an end of the connections takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    Kernel,
    Stack,
}

/// A program in a host. It ends with this.
pub(super) struct Program {
    pub(super) child: Child,
    pub(super) input: ChildStdin,
    pub(super) output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Starts a script of this directory.
    pub(super) fn start(host: &Namespace, by: By, script: &str, arguments: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("network").join(script);
        let script = script.to_string_lossy();
        // Nothing is written beside the scripts.
        Self::run(host, by, "python3", &[&["-B", &*script], arguments].concat()).expect("python3")
    }

    /// Starts any program.
    pub(super) fn run(host: &Namespace, by: By, program: &str, arguments: &[&str]) -> io::Result<Self> {
        let mut command = match by {
            By::Kernel => Command::new(program),
            By::Stack => {
                let mut command = Command::new(accel());
                command.args(["-o", &format!("interfaces={NAME}"), "--strict", program]);
                command
            }
        };
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = host.inside(move || command.spawn())?;
        let input = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its output")).lines();
        Ok(Self { child, input, output })
    }

    pub(super) fn line(&mut self) -> Option<String> {
        self.output.next().map(|line| line.expect("text"))
    }

    pub(super) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("it reads");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
