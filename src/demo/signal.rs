//! Signals to processes that this process started.

/// Sends `signal` to a child that has not been waited for yet, so that its id cannot belong to anybody else.
#[expect(unsafe_code, reason = "std sends SIGKILL only; kill(2) takes two integers and touches no memory")]
pub(super) fn send(child_id: u32, signal: libc::c_int) {
    if let Ok(id) = libc::pid_t::try_from(child_id) {
        // SAFETY: no pointers are involved. A child that is already dead is a zombie until it is waited for.
        unsafe { libc::kill(id, signal) };
    }
}

/// Sends `signal` to a child that leads a process group and has not been waited for yet, and to the whole group.
#[expect(unsafe_code, reason = "std sends no signal to a group; kill(2) takes two integers and touches no memory")]
pub(super) fn send_to_group(leader_id: u32, signal: libc::c_int) {
    if let Ok(id) = libc::pid_t::try_from(leader_id) {
        // SAFETY: as above; a negative number means the group.
        unsafe { libc::kill(-id, signal) };
    }
}

/// A command that receives `signal` when the thread that starts it dies, whatever killed it, and that Ctrl-C on the terminal
/// does not reach: whoever started it ends it in order.
///
/// `setpriv` of util-linux asks the kernel (prctl(2), PR_SET_PDEATHSIG) and then becomes the program, keeping the process id.
/// Where it does not exist the program starts directly and outlives a SIGKILL of its parent.
pub(super) fn dependent_command(program: &std::path::Path, signal_name: &str) -> std::process::Command {
    use std::os::unix::process::CommandExt;
    let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().find(|path| std::path::Path::new(path).exists());
    let mut command = match setpriv {
        Some(setpriv) => {
            let mut command = std::process::Command::new(setpriv);
            command.arg("--pdeathsig").arg(signal_name).arg("--").arg(program);
            command
        }
        None => std::process::Command::new(program),
    };
    command.process_group(0);
    command
}
