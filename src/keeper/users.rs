//! Users and groups, from `/etc/passwd` and `/etc/group`. Not by the C library, which asks daemons as well: a network
//! that is down, or a socket that is somebody's, would decide whether a job starts.

use std::{fs, io, path::Path};

use crate::sys::limits::Credentials;

/// Whom a name or number means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct User {
    pub(super) credentials: Credentials,
    /// Of a user, its name and home.
    pub(super) account: Option<(String, String)>,
}

/// A line of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        // name:password:uid:gid:comment:home:shell
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
        Some(Account { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    })
}

/// Name, number and members of each group.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, Vec<&str>)> {
    group.lines().filter_map(|line| {
        // name:password:gid:members
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members, ..] = fields[..] else { return None };
        Some((name, gid.parse().ok()?, members.split(',').collect()))
    })
}

/// Looks them up. A number that nobody has is a user too, of group 0 and without a home, as engines have it.
pub(super) fn look_up(user: Option<&str>, group: Option<&str>) -> Result<User, String> {
    let read = |path: &str| match fs::read(Path::new(path)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        // Numbers can do without.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("cannot read {path}: {}", crate::sys::errno(&error))),
    };
    find(user, group, &read("/etc/passwd")?, &read("/etc/group")?)
}

fn find(user: Option<&str>, group: Option<&str>, passwd: &str, group_file: &str) -> Result<User, String> {
    let gid = match group {
        Some(wanted) => {
            let named = groups(group_file).find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid);
            let gid = named.or_else(|| number(wanted));
            Some(gid.ok_or_else(|| format!("there is no group {wanted:?} in /etc/group"))?)
        }
        None => None,
    };
    let Some(wanted) = user else {
        let name = format!("group {}", group.unwrap_or("0"));
        let credentials = Credentials { name, uid: None, gid: gid.unwrap_or(0), groups: None };
        return Ok(User { credentials, account: None });
    };
    let uid = number(wanted);
    let account = accounts(passwd)
        .find(|account| account.name == wanted)
        .or_else(|| accounts(passwd).find(|account| Some(account.uid) == uid));
    let (uid, own_gid) = match (&account, uid) {
        (Some(account), _) => (account.uid, account.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(format!("there is no user {wanted:?} in /etc/passwd")),
    };
    let gid = gid.unwrap_or(own_gid);
    let is_member = |members: &[&str]| account.as_ref().is_some_and(|account| members.contains(&account.name));
    let mut all = vec![gid];
    all.extend(
        groups(group_file).filter(|(_, other, members)| *other != gid && is_member(members)).map(|(_, gid, _)| gid),
    );
    let name = format!("user {wanted}");
    Ok(User {
        credentials: Credentials { name, uid: Some(uid), gid, groups: Some(all) },
        account: Some(account.map_or_else(|| (wanted.into(), "/".into()), |a| (a.name.into(), a.home.into()))),
    })
}

/// -1 means "leave it" to the kernel.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nray:x:1000:1001:Ray:/home/ray:/bin/bash\n\
        broken:x:y\n77:x:78:78::/seventy:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nray:x:1001:\nvideo:x:44:root,ray\ndocker:x:999:ray\nray2:x:5:ray3\n";

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        for (user, group, expected) in [
            (Some("ray"), None, Ok((Some(1000), 1001, Some(vec![1001, 44, 999]), "/home/ray"))),
            (Some("1000"), None, Ok((Some(1000), 1001, Some(vec![1001, 44, 999]), "/home/ray"))),
            (Some("ray"), Some("video"), Ok((Some(1000), 44, Some(vec![44, 999]), "/home/ray"))),
            (Some("ray"), Some("7"), Ok((Some(1000), 7, Some(vec![7, 44, 999]), "/home/ray"))),
            (Some("4242"), None, Ok((Some(4242), 0, Some(vec![0]), "/"))),
            // A name of digits is a name first.
            (Some("77"), None, Ok((Some(78), 78, Some(vec![78]), "/seventy"))),
            (None, Some("docker"), Ok((None, 999, None, ""))),
            (Some("ghost"), None, Err("there is no user \"ghost\" in /etc/passwd")),
            (Some("broken"), None, Err("there is no user \"broken\" in /etc/passwd")),
            (Some("+5"), None, Err("there is no user \"+5\" in /etc/passwd")),
            (Some("4294967295"), None, Err("there is no user \"4294967295\" in /etc/passwd")),
            (Some("ray"), Some("ghosts"), Err("there is no group \"ghosts\" in /etc/group")),
        ] {
            let found = find(user, group, PASSWD, GROUP).map(|User { credentials, account }| {
                (
                    credentials.uid,
                    credentials.gid,
                    credentials.groups,
                    account.map(|(_, home)| home).unwrap_or_default(),
                )
            });
            let expected = expected.map(|(uid, gid, groups, home)| (uid, gid, groups, home.to_string()));
            assert_eq!(found, expected.map_err(String::from), "{user:?} {group:?}");
        }
    }
}
