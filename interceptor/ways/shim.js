// The shim: lets `new WebSocket(url)` of a page reach the host where no proxy brings it there.
//
// A URL that a rule matches is opened at the host's own address, spelled out in the path:
// ws://gate/in becomes ws://127.0.0.1:49152/.interceptor/ws/gate/in. Everything else is the native WebSocket's
// business, untouched. The page sees no difference: the socket is a native one, and only what would give the
// other address away (`url`, the `origin` of its messages) says what was asked for.
//
// The host writes `install({...})` below this, in a script of its own; see host.shim_js().

// Whether a pattern in normal form matches a URL; * stands for any run of characters. Linear in the length of
// the URL: each piece is looked for from where the last one ended. The PAC script has this function too, and
// old engines run that, so it is written in old JavaScript.
export function matches(pattern, text) {
  var parts = pattern.split("*"), first = parts.shift(), last = parts.pop();
  if (last === undefined) return text === first;
  var at = first.length, end = text.length - last.length;
  if (at > end || text.substring(0, at) !== first || text.substring(end) !== last) return false;
  for (var i = 0; i < parts.length; i++) {
    var found = text.indexOf(parts[i], at);
    if (found < 0 || found + parts[i].length > end) return false;
    at = found + parts[i].length;
  }
  return true;
}

// Whether the rules make a URL in normal form ours: the first row [pattern, ours] that matches decides.
export function decide(rules, url) {
  const row = rules.find(([pattern]) => matches(pattern, url));
  return row !== undefined && row[1];
}

// The patterns with the host name of a URL that none of them matches: it was mistyped, and of that the browser
// would say no more than that a policy forbids it, or that there is no such name.
export function nearMisses(rules, host, text) {
  if (rules.some(([pattern]) => matches(pattern, text))) return [];
  return rules.map(([pattern]) => pattern).filter(pattern => pattern.split("/")[2] === host);
}

// What a page means by the first argument of WebSocket, as the standard reads it; null where that is an error,
// which the native constructor is to report in its own words.
export function read(text, base) {
  let url;
  try {
    url = new URL(text, base);
  } catch {
    return null;
  }
  if (url.protocol === "http:") url.protocol = "ws:";
  if (url.protocol === "https:") url.protocol = "wss:";
  return /^wss?:/.test(url.protocol) && !url.href.includes("#") ? url : null;
}

// The normal form that rules are compared with: no user name, no password, and ^ encoded, which not all
// browsers do.
export function normal(url) {
  const plain = new URL(url);
  plain.username = plain.password = "";
  plain.pathname = plain.pathname.replaceAll("^", "%5E");
  return plain.href;
}

// Puts the shim in place of WebSocket.
//   base: where the host is, such as ws://127.0.0.1:49152; null for the address of the page.
//   token: proves that the page may connect; empty for a page of the host, which has a cookie.
//   rules: the rows for ws://... and for wss://... .
export function install({base, token, rules}, scope = globalThis) {
  const here = new URL(base ?? scope.location.origin.replace(/^http/, "ws"));
  const asked = new WeakMap();
  const Native = scope.WebSocket;

  // Where the host has a URL; null where the URL is not its business.
  function place(url) {
    if (url === null || url.host === here.host) return null;
    const scheme = url.protocol.slice(0, -1), text = normal(url);
    if (!decide(rules[scheme], text)) {
      const patterns = nearMisses([...rules.ws, ...rules.wss], url.host, text);
      if (patterns.length > 0) scope.console.warn(`the shim knows no rule for ${text}; there are ${patterns.join(", ")}`);
      return null;
    }
    const target = new URL(`/.interceptor/${scheme}/${text.slice(scheme.length + 3)}`, here);
    if (token) target.search += `${target.search ? "&" : "?"}token=${token}`;
    target.username = url.username;
    target.password = url.password;
    return target;
  }

  const Shim = new Proxy(Native, {
    construct(native, args, newTarget) {
      if (args.length === 0 || typeof args[0] === "symbol") return Reflect.construct(native, args, newTarget);
      // Read once, as the standard does: an object may say something else the second time.
      const [first, ...more] = [`${args[0]}`, ...args.slice(1)];
      const url = read(first, scope.document.baseURI), target = place(url);
      const socket = Reflect.construct(native, [target?.href ?? first, ...more], newTarget);
      if (target !== null) asked.set(socket, url);
      return socket;
    },
  });
  Object.defineProperty(scope, "WebSocket", {...descriptor(scope, "WebSocket"), value: Shim});
  Object.defineProperty(Native.prototype, "constructor", {...descriptor(Native.prototype, "constructor"), value: Shim});

  const targetOf = descriptor(scope.Event.prototype, "target").get;
  mend(Native.prototype, "url", (socket, said) => asked.get(socket)?.href ?? said);
  mend(scope.MessageEvent.prototype, "origin", (event, said) => {
    const url = said === here.origin ? asked.get(Reflect.apply(targetOf, event, [])) : undefined;
    return url?.origin ?? said;
  });
}

function descriptor(object, name) {
  return Object.getOwnPropertyDescriptor(object, name);
}

// Lets a getter say something else; it stays the native one to all who look at it.
function mend(prototype, name, change) {
  const found = descriptor(prototype, name);
  const get = new Proxy(found.get, {
    apply: (native, self, args) => change(self, Reflect.apply(native, self, args)),
  });
  Object.defineProperty(prototype, name, {...found, get});
}
