//! The operating system's entry of the effective user, without a call into libc: `/proc` knows the number, the user
//! database the name. Users of a directory service that are not in the file fall back to `USER`.

use std::os::unix::fs::MetadataExt;

/// Name and home directory of one user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OsUser {
    pub(super) name: String,
    pub(super) home: String,
}

/// The effective user of this process.
pub(super) fn current() -> Option<OsUser> {
    let id = std::fs::metadata("/proc/self").ok()?.uid();
    find(&std::fs::read_to_string("/etc/passwd").ok()?, id)
}

/// One line is `name:password:uid:gid:gecos:home:shell` (passwd(5)).
fn find(passwd: &str, id: u32) -> Option<OsUser> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        let home = fields.nth(2)?;
        (uid == id).then(|| OsUser { name: name.to_owned(), home: home.to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\nann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\n";
        assert_eq!(find(passwd, 1000), Some(OsUser { name: "ann".into(), home: "/home/ann".into() }));
        assert_eq!(find(passwd, 7), None);
    }
}
