//! Private PostgreSQL servers for tests, each in a temporary directory with a Unix socket.
//!
//! A server runs as a user that is not root, as PostgreSQL demands, and ends with the thread that
//! started it. Where PostgreSQL is not installed a test says so loudly and does nothing; with
//! `CHATCHAT_REQUIRE_ALL=1` it fails.

use std::{
    ffi::{OsStr, OsString},
    fs,
    net::TcpListener,
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::net::UnixStream;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::skip::skip;
use crate::env::{Env, real::TempDir};

/// Superuser of every server, and the name of its database.
pub const USER: &str = "chatchat";

/// Time for a server to start, on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);

/// Programs of a PostgreSQL installation.
#[derive(Clone, Debug)]
struct Programs(PathBuf);

impl Programs {
    fn find() -> Option<Self> {
        let debian = Path::new("/usr/lib/postgresql");
        let mut versions: Vec<_> = fs::read_dir(debian)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        versions.sort();
        let debian = versions.into_iter().rev().map(|version| version.join("bin"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path: Vec<_> = std::env::split_paths(&path).collect();
        debian
            .chain(on_path)
            .find(|dir| ["initdb", "postgres"].iter().all(|program| dir.join(program).is_file()))
            .map(Self)
    }

    /// Returns a command that runs one of the programs as the servers' user, and ends it with this
    /// thread.
    fn command(&self, program: &str, user: Option<(u32, u32)>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if let Some((user, group)) = user {
            command.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
            command.arg("--clear-groups");
        }
        command.arg(self.0.join(program)).current_dir("/").stdin(Stdio::null());
        command
    }
}

/// Returns ids of the user and group that servers run as, if this process is root's.
fn servers_user(dir: &Path) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let is_root = fs::metadata(dir).is_ok_and(|meta| meta.uid() == 0);
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    is_root.then(|| ids("postgres").or_else(|| ids("nobody"))).flatten()
}

/// Private server, stopped and removed with its handle.
#[derive(Debug)]
pub struct Server {
    programs: Programs,
    user: Option<(u32, u32)>,
    /// Base of all its files; in memory where that can be, as no test needs them to last.
    base: PathBuf,
    _temp: Option<TempDir>,
    /// Port on the loopback, which is in the socket's name too.
    port: u16,
    options: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// Starts a new server with these settings, such as `fsync=off`. `None` where PostgreSQL is not
    /// installed.
    ///
    /// # Panics
    /// If it does not start, or is not installed and must be.
    pub async fn start(env: &Env, options: &[&str]) -> Option<Self> {
        Self::start_in(env, options, true).await
    }

    /// Starts a new server as [`Self::start`] does, with its files on the disk of the temporary
    /// directory: for benches.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn start_on_disk(env: &Env, options: &[&str]) -> Option<Self> {
        Self::start_in(env, options, false).await
    }

    async fn start_in(env: &Env, options: &[&str], in_memory: bool) -> Option<Self> {
        let server = Self::prepared(options, in_memory)?;
        let data = server.data();
        let mut initdb = server.programs.command("initdb", server.user);
        initdb.args(["-U", USER, "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync"]);
        run(initdb.arg("-D").arg(data));
        Some(server.up(env).await)
    }

    /// Starts a standby that follows this server; `name` is how the primary knows it.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn standby(&self, env: &Env, name: &str) -> Self {
        let standby = Self::prepared(&[], true).expect("the primary is there");
        let mut backup = standby.programs.command("pg_basebackup", standby.user);
        backup.args(["-U", USER, "--wal-method=stream", "--checkpoint=fast", "--no-sync", "-R"]);
        backup.arg("-d").arg(format!("host={} application_name={name}", self.base.display()));
        run(backup.arg("-p").arg(self.port.to_string()).arg("-D").arg(standby.data()));
        standby.up(env).await
    }

    fn prepared(options: &[&str], in_memory: bool) -> Option<Self> {
        let Some(programs) = Programs::find() else {
            skip("PostgreSQL is not installed (Debian: apt-get install postgresql)");
            return None;
        };
        let temp = TempDir::new().expect("a directory");
        let name = temp.path().file_name().expect("a name").to_owned();
        let memory = Path::new("/dev/shm").join(name);
        let (base, temp) = if in_memory && fs::create_dir(&memory).is_ok() {
            (memory, None)
        } else {
            (temp.path().to_owned(), Some(temp))
        };
        let user = servers_user(&base);
        let data = base.join("data");
        fs::DirBuilder::new().mode(0o700).create(&data).expect("a directory");
        if let Some((user, group)) = user {
            for dir in [&base, &data] {
                chown(dir, Some(user), Some(group)).expect("root may");
            }
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = port.expect("a free port").port();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Some(Self { programs, user, base, _temp: temp, port, options, process: None })
    }

    fn data(&self) -> PathBuf {
        self.base.join("data")
    }

    /// Directory of its socket and of files that tests put beside it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.base
    }

    /// Its port on the loopback, if a setting makes it listen there.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// URL of a store on its socket, in the schema of this name.
    #[must_use]
    pub fn url(&self, schema: &str) -> String {
        format!("postgres://{USER}@{}/postgres?options=-csearch_path%3D{schema}", self.host())
    }

    /// Its socket as the host of a URL, with the port.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}:{}", self.base.display().to_string().replace('/', "%2F"), self.port)
    }

    async fn up(mut self, env: &Env) -> Self {
        self.restart(env).await;
        self
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`].
    ///
    /// # Panics
    /// If it does not start.
    pub async fn restart(&mut self, env: &Env) {
        self.kill();
        self.spawn();
        let started = async {
            while self.try_sql(env, "SELECT 1").await.is_err() {
                // Of a server that was killed some processes may not have ended yet.
                if self.process.as_mut().is_none_or(|it| !matches!(it.try_wait(), Ok(None))) {
                    self.spawn();
                }
                env.sleep(Duration::from_millis(50)).await;
            }
        };
        if env.timeout(START_MAX, started).await.is_err() {
            let log = fs::read_to_string(self.base.join("log")).unwrap_or_default();
            panic!("the server did not start:\n{log}");
        }
    }

    fn spawn(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.base.join("log"));
        let log = log.expect("a log");
        let mut postgres = self.programs.command("postgres", self.user);
        postgres.arg("-D").arg(self.data()).arg("-k").arg(&self.base);
        postgres.args(["-p", &self.port.to_string(), "-c", "listen_addresses="]);
        postgres.args(["-c", "unix_socket_permissions=0777"]);
        for option in &self.options {
            postgres.arg("-c").arg(option);
        }
        postgres.stdout(log.try_clone().expect("a log")).stderr(log);
        self.process = Some(postgres.spawn().expect("a server"));
    }

    /// Adds settings for the next start.
    pub fn set(&mut self, options: &[&str]) {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
    }

    /// Asks it to stop at once, whatever its clients do.
    pub fn stop(&mut self) {
        self.signal("INT");
    }

    /// Kills it as a crash of its host would.
    pub fn kill(&mut self) {
        self.signal("KILL");
    }

    /// Sends a signal that ends it, and waits for the end.
    fn signal(&mut self, name: &str) {
        let Some(mut process) = self.process.take() else { return };
        let pid = process.id().to_string();
        let _ = Command::new("kill").args(["-s", name, &pid]).status();
        let _ = process.wait();
    }

    /// Makes a standby take writes.
    ///
    /// # Panics
    /// If it does not within a minute.
    pub async fn promote(&self, env: &Env) {
        self.sql(env, "SELECT pg_promote(true, 60)").await;
    }

    /// Runs statements as the superuser and returns the values of their rows.
    ///
    /// # Panics
    /// If one fails.
    pub async fn sql(&self, env: &Env, text: &str) -> Vec<String> {
        self.try_sql(env, text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    async fn try_sql(&self, env: &Env, text: &str) -> Result<Vec<String>, String> {
        let socket = self.base.join(format!(".s.PGSQL.{}", self.port));
        let stream = UnixStream::connect(socket).await.map_err(|e| e.to_string())?;
        let mut config = Config::new();
        config.user(USER).dbname("postgres");
        let connected = config.connect_raw(stream, NoTls).await;
        let (client, connection) = connected.map_err(|e| format!("{e:?}"))?;
        let _driver =
            env.spawn("test-connection", async move { drop(connection.await) }).abort_on_drop();
        let rows = client.simple_query(text).await.map_err(|e| format!("{e:?}"))?;
        Ok(rows
            .iter()
            .filter_map(|row| match row {
                SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
                _ => None,
            })
            .collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal("QUIT");
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// Runs a command to its end.
///
/// # Panics
/// If it fails, with what it said.
fn run(command: &mut Command) {
    let output = command.output().expect("it runs");
    let program: Vec<OsString> = command.get_args().map(OsStr::to_owned).collect();
    assert!(
        output.status.success(),
        "{program:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
