// What ragq refuses, and why.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Reads the reason out of an answer.
export function readError(status, text) {
  let message = `ragq answered with status ${status}.`;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // a proxy's own page: the status has to do
  }
  return new ApiError(status, message);
}
