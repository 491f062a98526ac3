//! Boundary of a host, at which panics of its tasks are caught. As on a real machine they end the
//! process, and the run goes on.
//!
//! 1. A panic of the world itself, or of the harness, ends the run.
//! 2. No panic is lost: a line of the event log tells it, `World::panics` returns it, and a run
//!    whose harness never asked for them panics at its end.
//! 3. What a task does when it is dropped after the end of its life is stale, a panic too.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    thread,
};

use dst_env::BoxFuture;

use crate::{ids::Life, shared::Shared, wait::Timer};

/// Task of a host, which waits for the host's processor and hands its panic to the world.
pub(crate) struct Guarded {
    world: Shared,
    life: Life,
    name: &'static str,
    /// Wait for a slow processor.
    turn: Option<Timer>,
    task: Option<BoxFuture<'static, ()>>,
}

impl Guarded {
    /// Wraps a task of a life.
    pub(crate) const fn new(
        world: Shared,
        life: Life,
        name: &'static str,
        task: BoxFuture<'static, ()>,
    ) -> Self {
        Self { world, life, name, turn: None, task: Some(task) }
    }
}

impl Future for Guarded {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(task) = &mut this.task else { return Poll::Ready(()) };
        loop {
            if let Some(turn) = &mut this.turn {
                std::task::ready!(Pin::new(turn).poll(cx));
                this.turn = None;
            }
            match this.world.step(this.life) {
                Some(at) => this.turn = Some(Timer::new(this.world.clone(), this.life, at)),
                None => break,
            }
        }
        catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))).unwrap_or_else(|panic| {
            this.world.on_panic(this.life, this.name, panic);
            Poll::Ready(())
        })
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let task = self.task.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(task)))
            && !thread::panicking()
        {
            self.world.on_panic(self.life, self.name, panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use dst_env::Env;

    use super::*;
    use crate::{HostId, Panicked, Setup, World, simulate};

    /// Runs `main` on a machine and returns the panics and the kinds of log lines of that machine.
    fn panics_of<F>(main: impl Fn(Env) -> F + Sync) -> (Vec<Panicked>, String)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        simulate(Setup::new(1), async |world| {
            let host = world.add_host("server");
            world.contain_panics_of(&["of one peer"]);
            world.boot(host, &main);
            world.sleep(Duration::from_secs(5)).await;
            let lines = world.log_lines();
            let kinds = lines.iter().filter(|line| line.contains(r#""host":"server""#));
            let kinds =
                kinds.filter_map(|line| line.split(r#""kind":""#).nth(1)?.split('"').next());
            (world.panics(), kinds.collect::<Vec<_>>().join(" "))
        })
    }

    #[test]
    fn panic_of_a_task_ends_its_process_and_the_run_goes_on() {
        let (panics, log) = panics_of(async |env: Env| {
            env.spawn("part", async { panic!("on purpose") });
            pending::<()>().await;
        });
        assert_eq!(log, "boot panicked exit");
        let [panic] = &panics[..] else { panic!("{panics:?}") };
        assert!(panic.location.starts_with("sim/world/src/guarded.rs:"), "{panic}");
        let shown =
            format!(r#"server panicked in its task "part", at {}: on purpose"#, panic.location);
        assert_eq!(panic.to_string(), shown);
        let (panics, log) = panics_of(async |_: Env| panic!("on purpose"));
        assert_eq!((panics[0].task, log.as_str()), ("main", "boot panicked exit"));
    }

    #[test]
    fn panic_of_a_contained_task_or_of_a_job_is_told_and_the_process_goes_on() {
        let (panics, log) = panics_of(async |env: Env| {
            env.spawn("of one peer", async { panic!("on purpose") });
            let lost = env.compute(|| assert_eq!(1, 2, "on purpose")).await;
            assert_eq!(lost, Err(dst_env::Cancelled));
            env.fault_point("the end");
            pending::<()>().await;
        });
        let tasks: Vec<_> = panics.iter().map(|panic| panic.task).collect();
        assert_eq!(tasks.len(), 2, "{panics:?}");
        assert!(tasks.contains(&"of one peer") && tasks.contains(&"compute"), "{panics:?}");
        assert!(!log.contains("exit") && log.contains("fault_point"), "{log}");
    }

    #[test]
    fn process_panics_where_it_was_asked_to_and_boots_again() {
        simulate(Setup::new(1), async |world| {
            let host = world.add_host("server");
            let server = async |env: Env| {
                env.fault_point("written");
                env.fault_point("answered");
                pending::<()>().await;
            };
            world.panic_at(host, "answered");
            world.boot(host, server);
            world.sleep(Duration::from_secs(1)).await;
            assert!(!world.is_running(host));
            assert_eq!(world.panics().len(), 1);
            world.boot(host, server);
            world.sleep(Duration::from_secs(1)).await;
            assert!(world.is_running(host), "once is enough");
        });
    }

    #[test]
    fn panic_that_nobody_asked_for_or_of_the_harness_itself_ends_the_run() {
        let ended = |run: fn(World, HostId)| {
            let ran = std::panic::catch_unwind(|| {
                simulate(Setup::new(1), async |world| {
                    let host = world.add_host("server");
                    run(world.clone(), host);
                    world.sleep(Duration::from_secs(5)).await;
                    world.elapsed()
                })
            });
            ran.expect_err("it panics").downcast_ref::<String>().expect("a message").clone()
        };
        let told = ended(|world, host| world.boot(host, async |_| panic!("of a task")));
        assert!(told.contains("of a task"), "{told}");
        let told = ended(|world, host| {
            world.on_fault_point(|_, _| panic!("of the listener"));
            world.boot(host, async |env: Env| env.fault_point("here"));
            world.clone().supervise(async move {
                world.sleep(Duration::from_secs(4)).await;
                panic!("the run went on");
            });
        });
        assert!(told.contains("of the listener"), "{told}");
    }
}
