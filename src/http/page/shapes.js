// Recognises answers of ours. Between the page and its master a proxy or a captive portal may
// answer instead, with any status: only a body of ours that names what was asked for counts.

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isText = (value) => typeof value === "string";
export const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const isListOf = (is) => (value) => Array.isArray(value) && value.every(is);

const HEX_ID = /^[0-9a-f]{32}$/;
export const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const BOARD = /^[a-z0-9][a-z0-9-]{0,31}$/;

export const isUserId = (value) => isText(value) && HEX_ID.test(value);

const isUser = (value) => isObject(value) && HEX_ID.test(value.id) && isText(value.name);
const isPresent = (value) => isUser(value) && isCount(value.last_seen);
const isMaster = (value) => isObject(value) && isText(value.id) && isText(value.name) && isText(value.http);
const isNode = (value) => isObject(value) && [value.id, value.name, value.role, value.state].every(isText);

export const isBoardName = (value) => isText(value) && BOARD.test(value);

export const isBoard = (value) =>
  isObject(value) && isBoardName(value.name) && isCount(value.last_seq) && isCount(value.read_mark);

export const isPost = (value) =>
  isObject(value) &&
  [value.id, value.board, value.text].every(isText) &&
  isCount(value.seq) &&
  value.seq > 0 &&
  isUser(value.author) &&
  isCount(value.posted_at);

export const isPage = (board) => (value) =>
  isObject(value) &&
  isListOf(isPost)(value.posts) &&
  value.posts.every((post) => post.board === board) &&
  isCount(value.last_seq) &&
  typeof value.truncated === "boolean";

export const isSession = (value) =>
  isObject(value) &&
  isUser(value.user) &&
  isListOf(isBoard)(value.boards) &&
  isListOf(isMaster)(value.masters) &&
  isCount(value.epoch) &&
  isText(value.cluster);

export const isBoardList = (value) =>
  isObject(value) && isListOf(isBoard)(value.boards) && isCount(value.epoch);
export const isUserList = (value) =>
  isObject(value) &&
  isListOf(isPresent)(value.users) &&
  [value.version, value.total].every((n) => n === undefined || isCount(n));

const isChange = (value) =>
  isObject(value) &&
  [value.version, value.since, value.total].every(isCount) &&
  isListOf(isPresent)(value.came) &&
  isListOf((id) => HEX_ID.test(id))(value.left);
export const isCluster = (value) => isObject(value) && isText(value.store) && isListOf(isNode)(value.nodes);
export const isTicket = (value) => isObject(value) && isText(value.ticket) && value.ticket !== "";
export const isReady = (value) => isObject(value) && value.ready === true && isText(value.state);
export const isProblem = (value) => isObject(value) && /^urn:chatchat:[a-z-]+$/.test(value.type);

// The fate of this very post.
export const isFate = (id, states) => (value) =>
  isObject(value) &&
  value.id === id &&
  states.includes(value.state) &&
  (value.state !== "committed" || isPost(value));

// Events of the stream, by name.
export const EVENTS = {
  hello: (value) =>
    isObject(value) && isMaster(value.node) && isListOf(isMaster)(value.masters) && isText(value.cursor),
  post: isPost,
  pending: (value) => isObject(value) && isText(value.id) && isText(value.state),
  presence: (value) => isUserList(value) || isChange(value),
  state: (value) => isObject(value) && isText(value.consistency),
  masters: (value) => isObject(value) && isListOf(isMaster)(value.masters),
  reset: isObject,
  beat: isObject,
  bye: (value) => isObject(value) && isText(value.reason) && isListOf(isMaster)(value.to),
};
