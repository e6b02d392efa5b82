//! Finds a command as execvp(3) does, and says why it can't be started if it can't.

use crate::refusal::{NOT_EXECUTABLE, NOT_FOUND, Refusal};
use crate::sys;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where glibc looks when there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The file that this command names, along `path` (the value of PATH).
pub(crate) fn command(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Refusal> {
    let shown = name.to_string_lossy();
    if name.is_empty() {
        return Err(Refusal::with(NOT_FOUND, "the name of the command is empty; name a program."));
    }
    if name.as_bytes().contains(&b'/') {
        let file = PathBuf::from(name);
        return match obstacle(&file) {
            None => Ok(file),
            Some(Obstacle::Absent(why)) => {
                Err(Refusal::with(NOT_FOUND, format!("{shown} could not be started: {why}.")))
            }
            Some(Obstacle::Forbidden(why)) => {
                Err(Refusal::with(NOT_EXECUTABLE, format!("{shown} could not be started: {why}.")))
            }
        };
    }
    let path: OsString = path.map_or_else(|| DEFAULT_PATH.into(), OsStr::to_owned);
    let mut forbidden = None;
    for directory in path.as_bytes().split(|&byte| byte == b':') {
        // An empty element is the current directory.
        let directory = if directory.is_empty() { b".".as_slice() } else { directory };
        let file = Path::new(OsStr::from_bytes(directory)).join(name);
        match obstacle(&file) {
            None => return Ok(file),
            Some(Obstacle::Absent(_)) => {}
            Some(Obstacle::Forbidden(why)) => {
                forbidden.get_or_insert((file, why));
            }
        }
    }
    Err(match forbidden {
        Some((file, why)) => {
            Refusal::with(NOT_EXECUTABLE, format!("{} could not be started: {why}.", file.display()))
        }
        None => Refusal::with(
            NOT_FOUND,
            format!("there is no program `{shown}` in PATH; check the spelling or give its path."),
        ),
    })
}

enum Obstacle {
    Absent(String),
    Forbidden(String),
}

fn obstacle(file: &Path) -> Option<Obstacle> {
    match std::fs::metadata(file) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Some(Obstacle::Absent("there is no such file".to_owned()))
        }
        Err(error) => Some(Obstacle::Forbidden(error.to_string())),
        Ok(facts) if facts.is_dir() => Some(Obstacle::Forbidden("it is a directory".to_owned())),
        Ok(facts) if !facts.is_file() => Some(Obstacle::Forbidden("it is not a plain file".to_owned())),
        Ok(_) => match sys::may_execute(file) {
            Ok(()) => None,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Some(Obstacle::Forbidden(
                "it may not be executed by this user; `chmod +x` it if it is a program".to_owned(),
            )),
            Err(error) => Some(Obstacle::Forbidden(error.to_string())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_along_the_path_and_by_path() {
        let path = Some(OsStr::new("/nonexistent::/bin"));
        assert_eq!(command(OsStr::new("sh"), path).unwrap(), Path::new("/bin/sh"));
        assert_eq!(command(OsStr::new("sh"), None).unwrap(), Path::new("/bin/sh"));
        assert_eq!(command(OsStr::new("/bin/sh"), None).unwrap(), Path::new("/bin/sh"));
    }

    #[test]
    fn the_status_tells_missing_from_forbidden() {
        let status = |name: &str| command(OsStr::new(name), Some(OsStr::new("/bin"))).unwrap_err().status;
        assert_eq!(status("no-such-program"), NOT_FOUND);
        assert_eq!(status("/no/such/program"), NOT_FOUND);
        assert_eq!(status(""), NOT_FOUND);
        assert_eq!(status("/etc/passwd"), NOT_EXECUTABLE);
        assert_eq!(status("/etc"), NOT_EXECUTABLE);
        assert_eq!(status("/dev/null"), NOT_EXECUTABLE);
    }
}
