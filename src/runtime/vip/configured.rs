//! The configuration in the terms of this host.

use super::super::capabilities;
use super::super::machine::scheduling::Standing;
use super::{Address, Check, Hook, Set, Settings, User};
use crate::config::settings::{Question, Vip, VipAddress, VipCheck, VipSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// What is held is announced again so often: switches and neighbours forget.
const REFRESH: Duration = Duration::from_secs(30);
/// A hook that runs longer is killed.
const HOOK_PATIENCE: Duration = Duration::from_secs(30);

/// What the configuration says of service addresses.
pub(in super::super) fn configured(vip: &Vip) -> io::Result<Settings> {
    let runs = vip.hook.is_some() || vip.checks.iter().any(|check| matches!(check.question, Question::Command(_)));
    let user = vip.user.as_deref().filter(|_| runs).map(user).transpose()?.flatten();
    Ok(Settings {
        sets: vip.sets.iter().map(set).collect(),
        lease: vip.lease,
        refresh: REFRESH,
        standing: vip.profile.realtime().map_or(Standing::First, |[keeper, ..]| Standing::RealTime(keeper)),
        checks: vip.checks.iter().map(check).collect(),
        hook: vip.hook.clone().map(|command| Hook { command, patience: HOOK_PATIENCE }),
        user,
    })
}

fn set(set: &VipSet) -> Set {
    let address = |address: &VipAddress| Address { interface: address.interface.clone(), address: address.ip };
    let addresses = set.addresses.iter().map(address).collect();
    Set { name: set.name.clone(), addresses, router: set.router, conntrack: set.conntrack }
}

fn check(check: &VipCheck) -> Check {
    let &VipCheck { interval, timeout, rise, fall, .. } = check;
    Check { question: check.question.clone(), interval, timeout, rise, fall }
}

/// The user of this name; none if that is this process's own, which needs no right for it.
fn user(name: &str) -> io::Result<Option<User>> {
    let user = User::named(name)?;
    // The owner of its directory in /proc is who the process is.
    if std::fs::metadata("/proc/self")?.uid() == user.uid {
        return Ok(None);
    }
    if !(capabilities::has(capabilities::SETUID) && capabilities::has(capabilities::SETGID)) {
        let why = format!(
            "commands as `{name}` need CAP_SETUID and CAP_SETGID: grant them, or leave `user` out, and commands run as the \
             router's own user, without its privileges"
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(Some(user))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Coverage, Profile};
    use crate::runtime::machine::scheduling::KERNEL_PRIORITY;

    fn asking(question: Question) -> Vip {
        let check = VipCheck {
            name: "it".into(),
            question,
            interval: Duration::from_millis(7),
            timeout: Duration::from_millis(8),
            rise: 3,
            fall: 4,
            sets: Vec::new(),
        };
        Vip { checks: vec![check], ..Vip::default() }
    }

    #[test]
    fn checks_hooks_and_routers_reach_the_host_as_they_are_written() {
        let set = |router| VipSet {
            name: format!("router {router}"),
            addresses: vec![VipAddress { ip: [192, 0, 2, 1].into(), interface: "eth1".into() }],
            coverage: Coverage::Component,
            prefer: Vec::new(),
            router,
            conntrack: router,
        };
        let hook = Some(vec!["tell".to_owned(), "all".to_owned()]);
        let vip = Vip { sets: vec![set(true), set(false)], hook, ..asking(Question::File("/up".into())) };
        let settings = configured(&vip).expect("asks for nothing that may be missing");
        assert_eq!(settings.sets.iter().map(|set| set.router).collect::<Vec<_>>(), [true, false]);
        assert_eq!(settings.sets.iter().map(|set| set.conntrack).collect::<Vec<_>>(), [true, false]);
        assert_eq!(settings.sets[0].addresses[0].interface, "eth1");
        assert_eq!(settings.hook.expect("is there").command, ["tell", "all"]);
        let times = (Duration::from_millis(7), Duration::from_millis(8));
        let check =
            Check { question: Question::File("/up".into()), interval: times.0, timeout: times.1, rise: 3, fall: 4 };
        assert_eq!(settings.checks, [check]);
    }

    #[test]
    fn only_the_fast_profile_is_kept_in_real_time() {
        let standing = |profile| configured(&Vip { profile, ..Vip::default() }).expect("is right").standing;
        assert!(matches!(standing(Profile::Fast), Standing::RealTime(1..KERNEL_PRIORITY)));
        assert_eq!([Profile::Safe, Profile::Wan].map(standing), [Standing::First; 2]);
    }

    #[test]
    fn a_user_is_looked_up_only_for_commands() {
        let user = Some("no such user".to_owned());
        let quiet = Vip { user: user.clone(), ..asking(Question::File("/up".into())) };
        assert_eq!(configured(&quiet).expect("runs no command").user, None);
        let error = configured(&Vip { user, ..asking(Question::Command(vec!["true".into()])) });
        assert!(error.expect_err("there is none").to_string().contains("no user `no such user`"));
    }
}
