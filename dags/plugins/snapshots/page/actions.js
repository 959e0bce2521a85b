// actions.js: what the buttons do: the DAG that each has Airflow start, and the words around it.
// until: the task that does what the button says, where the run goes on after it.

const RECORDS = "For the records and for whoever is on call next:";

export const ACTIONS = {
  promote: {
    dag: "snapshot_promote",
    right: "may_promote",
    label: () => "Promote",
    confirm: "Promote",
    icon: "upload",
    title: (version) => `Promote ${version}`,
    question: `${RECORDS} why this version, and why not by its own build?`,
    doing: (version) => `Promoting ${version}`,
    done: (version) => `Promoted ${version}.`,
  },
  rollback: {
    dag: "snapshot_rollback",
    right: "may_roll_back",
    label: () => "Roll back to this",
    confirm: "Roll back",
    icon: "rotate-ccw",
    title: (version) => `Roll back to ${version}`,
    question: `${RECORDS} what was wrong with the live version?`,
    doing: (version) => `Rolling back to ${version}`,
    done: (version) => `Rolled back to ${version}.`,
  },
  canary: {
    dag: "snapshot_canary",
    until: "start",
    right: "may_try",
    label: () => "Canary",
    confirm: "Start",
    icon: "users",
    title: (version) => `Try ${version} on some users`,
    question: `${RECORDS} why is this version tried?`,
    doing: (version) => `Starting to try ${version}`,
    done: (version) => `${version} is tried. The run that decides goes on.`,
  },
  canary_end: {
    dag: "snapshot_canary_end",
    right: "may_end_trial",
    label: (mode) => `End ${mode}`,
    confirm: "End it",
    icon: "x",
    title: (version, mode) => `End the ${mode} of ${version}`,
    question: `${RECORDS} why is it ended before it was decided?`,
    doing: (version) => `Ending the trial of ${version}`,
    done: (version) => `${version} is tried no longer.`,
  },
};
