//! The key file: where a router keeps its secret identity.
//!
//! One line, as printed by [`Identity::to_secret_text`]. It is created once, never overwritten, and readable by its owner
//! alone; a file that others can read is refused rather than used, because then the secret is not one.

use crate::base::Identity;
use crate::base::identity::BadIdentity;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Permission bits of a key file.
const MODE: u32 = 0o600;
/// Longest content read, bytes; a key file has 57.
const MAX_LEN: u64 = 4096;

/// Why a key file was not created or not loaded.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Creating would overwrite something.
    #[error("{} exists: a key is never overwritten; remove the file or choose another name", .0.display())]
    Exists(PathBuf),
    /// There is no such file.
    #[error("{path} does not exist: create it with `sinew key generate {path}`", path = quoted(.0))]
    Missing(PathBuf),
    /// Others than its owner may use it.
    #[error("{} can be used by others (mode {mode:04o}): make it private with `chmod 600 {}`, and make a new key if \
             others may have read it", .path.display(), quoted(.path))]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is a directory, a device, a pipe.
    #[error("{} is not a regular file: name the file written by `sinew key generate`", .0.display())]
    NotRegular(PathBuf),
    /// Its content is not an identity.
    #[error("{}: {reason}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: BadIdentity,
    },
    /// The system refused.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The path as a shell would have to read it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> KeyFileError + 'a {
    move |source| KeyFileError::Io { action, path: path.to_owned(), source }
}

/// Writes `identity` to a new file at `path`, private from its first moment and on disk when this returns. What cannot
/// be completed is removed.
pub fn create(path: &Path, identity: &Identity) -> Result<(), KeyFileError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
    let mut file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists(path.to_owned()),
        _ => failed("create it", path)(error),
    })?;
    let written = fill(&mut file, identity).and_then(|()| sync_directory(path));
    written.map_err(|error| {
        // Best effort: the error that is reported is the first one.
        let _ = std::fs::remove_file(path);
        failed("write it", path)(error)
    })
}

fn fill(file: &mut File, identity: &Identity) -> io::Result<()> {
    // The umask may have taken bits away from the owner.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(identity.to_secret_text().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// Makes the new name durable, not only the content.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Reads the identity in the file at `path`, unless others than its owner can use that file.
pub fn load(path: &Path) -> Result<Identity, KeyFileError> {
    // Without O_NONBLOCK, opening a named pipe would wait for a writer.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing(path.to_owned()),
        _ => failed("open it", path)(error),
    })?;
    let metadata = file.metadata().map_err(failed("examine it", path))?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotRegular(path.to_owned()));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
    }
    // Room for all that is read, so that growing leaves no copy of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_LEN as usize));
    match file.take(MAX_LEN).read_to_string(&mut text) {
        Ok(_) => {}
        // Not UTF-8: the empty text gives the right complaint.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => text.clear(),
        Err(error) => return Err(failed("read it", path)(error)),
    }
    Identity::from_secret_text(&text).map_err(|reason| KeyFileError::Content { path: path.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    fn identity() -> Identity {
        Identity::from_seed([3; 32])
    }

    #[test]
    fn what_was_created_loads_and_is_private_and_is_never_overwritten() {
        let directory = directory();
        let path = directory.path().join("router.key");
        create(&path, &identity()).expect("a new file");
        assert_eq!(load(&path).expect("loads").public(), identity().public());
        let mode = std::fs::metadata(&path).expect("exists").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let other = Identity::from_seed([4; 32]);
        assert!(matches!(create(&path, &other), Err(KeyFileError::Exists(_))));
        assert_eq!(load(&path).expect("still loads").public(), identity().public());
    }

    #[test]
    fn refuses_what_others_can_use_and_says_how_to_mend_it() {
        let directory = directory();
        let path = directory.path().join("it's.key");
        create(&path, &identity()).expect("a new file");
        for mode in [0o640, 0o604, 0o620, 0o601, 0o666] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own file");
            let error = load(&path).expect_err("not private").to_string();
            assert!(error.contains(&format!("{mode:04o}")) && error.contains(r"chmod 600 '"), "{error}");
        }
        for mode in [0o600, 0o400] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own file");
            assert!(load(&path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_key_file() {
        let directory = directory();
        assert!(matches!(load(directory.path()), Err(KeyFileError::NotRegular(_))));
        let absent = directory.path().join("absent");
        let error = load(&absent).expect_err("there is none").to_string();
        assert!(error.contains("sinew key generate"), "{error}");
        assert!(matches!(create(&absent.join("key"), &identity()), Err(KeyFileError::Io { .. })));
        for content in [&b"nonsense"[..], b"\xff\xfe", b"", identity().public().to_string().as_bytes()] {
            let path = directory.path().join("bad.key");
            std::fs::write(&path, content).expect("writes");
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("our own file");
            assert!(matches!(load(&path), Err(KeyFileError::Content { .. })));
        }
    }

    #[test]
    fn a_named_pipe_is_refused_without_waiting() {
        let directory = directory();
        let path = directory.path().join("pipe");
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("no zero byte");
        // SAFETY: `name` is a valid C string that outlives the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert!(matches!(load(&path), Err(KeyFileError::NotRegular(_))));
    }
}
