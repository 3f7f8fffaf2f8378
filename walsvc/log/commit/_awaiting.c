/* Awaiting an Ack, as a future's iterator and as a coroutine. */

#include "_ack.h"

/* Sets StopIteration(value). The exception object is made first: PyErr_SetObject would take a tuple apart. */
static void stop_with(PyObject *value)
{
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    Py_DECREF(value);
    raise_instance(stop);
}

PyObject *ack_next(Ack *self)
{
    if (self->state == PENDING) {
        self->blocking = 1;
        return Py_NewRef((PyObject *)self);
    }
    PyObject *value = ack_result(self, NULL);
    if (value != NULL)
        stop_with(value);
    return NULL;
}

PyObject *ack_send(Ack *self, PyObject *Py_UNUSED(value)) { return ack_next(self); }

PySendResult ack_am_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    Ack *self = (Ack *)op;
    if (self->state == PENDING) {
        self->blocking = 1;
        *result = Py_NewRef(op);
        return PYGEN_NEXT;
    }
    *result = ack_result(self, NULL);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

/* throw(exception) and the older throw(type, value, traceback): raises it, and changes nothing. */
PyObject *ack_throw(Ack *Py_UNUSED(self), PyObject *const *args, Py_ssize_t count)
{
    if (count < 1 || count > 3) {
        PyErr_SetString(PyExc_TypeError, "throw(exception)");
        return NULL;
    }
    PyObject *exception = count > 1 && PyExceptionInstance_Check(args[1]) ? args[1] : args[0];
    if (PyExceptionInstance_Check(exception)) {
        raise_instance(Py_NewRef(exception));
    } else if (PyExceptionClass_Check(exception)) {
        PyObject *made = count > 1 && args[1] != Py_None ? PyObject_CallOneArg(exception, args[1]) : PyObject_CallNoArgs(exception);
        raise_instance(made);
    } else {
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException");
    }
    return NULL;
}

PyObject *ack_close(Ack *Py_UNUSED(self), PyObject *Py_UNUSED(ignored)) { Py_RETURN_NONE; }
