const socket = new WebSocket("ws://myapp/progress");
const value = document.querySelector("#value"), state = document.querySelector("#state");

socket.onopen = () => { state.textContent = "connected"; };
socket.onclose = () => { state.textContent = "not connected"; };
socket.onmessage = ({data}) => { document.querySelector("#said").textContent = data; };
value.oninput = () => {
  document.querySelector("#shown").textContent = value.value;
  socket.send(value.value);
};
