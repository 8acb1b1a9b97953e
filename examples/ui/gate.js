const ask = document.querySelector("#ask"), list = document.querySelector("#list");
const state = document.querySelector("#state");

function note(text, where) {
  const item = document.createElement("li");
  item.textContent = text;
  list.append(item);
  if (where) state.textContent = where;
}

ask.onclick = () => {
  const socket = new WebSocket("ws://gate/in");
  let open = false;
  ask.disabled = true;
  note("Asked; see the other window.", "asking");
  socket.onopen = () => { open = true; note("Come in!", "inside"); };
  socket.onmessage = ({data}) => note(data);
  socket.onclose = () => {
    note(open ? "Out again." : "Not today.", "outside");
    ask.disabled = false;
  };
};
ask.disabled = false;
